"""Every config of every size builds, and every argument that is none is named."""

import importlib

import pytest

from configs import common
from realm_jax.config import InputError, RealmConfig

FILES = ("ict", "encoder", "pretrain", "finetune", "demo", "table2", "swap")


@pytest.mark.parametrize("size", common.SIZES)
@pytest.mark.parametrize("name", FILES)
def test_builds(name, size):
  config = importlib.import_module(f"configs.{name}").get_config(size)
  section = config.ict if "ict" in config else config
  for part in (section.embedder, section.encoder):
    sizes = RealmConfig.from_dict(part.to_dict())
    assert not sizes.extra, "a field that RealmConfig doesn't know"
  skipped = 0 if section.contiguous else section.query_len
  longest = max(section.block_len, skipped + section.joint_len)
  assert longest <= section.encoder.max_position_embeddings


@pytest.mark.parametrize("size", common.SIZES)
@pytest.mark.parametrize("name", FILES)
def test_each_text_has_a_weight(name, size):
  """Phases have the data of the whole."""
  config = importlib.import_module(f"configs.{name}").get_config(size)
  texts = config.data.text.split(",")
  for section in (config, config.get("encoder"), config.get("pretrain")):
    if section is not None and "text_weights" in section:
      assert len(section.text_weights) == len(texts)


@pytest.mark.parametrize("name", FILES)
def test_unknown_size(name):
  with pytest.raises(InputError, match=r"huge.*smoke, demo, base"):
    importlib.import_module(f"configs.{name}").get_config("huge")
