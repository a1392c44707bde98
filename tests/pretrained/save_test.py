"""save_pretrained: a directory that the reference reads, whole or not at all."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from realm_jax.config import InputError, RealmConfig
from realm_jax.models.embedder import RealmEmbedder, RealmScorer
from realm_jax.models.open_qa import RealmForOpenQA
from realm_jax.pretrained import load_pretrained, save_pretrained

SIZES = RealmConfig(
  vocab_size=23,
  hidden_size=6,
  num_hidden_layers=1,
  num_attention_heads=3,
  intermediate_size=5,
  retriever_proj_size=4,
  max_position_embeddings=9,
  max_span_width=3,
)


@pytest.mark.parametrize(
  "name", ["embedder", "scorer", "encoder", "reader", "openqa"]
)
def test_a_directory_is_written_back_as_it_was(name, reference, tmp_path):
  path = tmp_path / "new" / name
  save_pretrained(path, load_pretrained(reference / name))
  was, now = (
    load_file(p / name / "model.safetensors") for p in (reference, path.parent)
  )
  assert was.keys() == now.keys()
  jax.tree.map(np.testing.assert_array_equal, was, now)
  with safe_open(path / "model.safetensors", "np") as f:
    assert f.metadata() == {"format": "pt"}
  text = (reference / name / "config.json").read_text()
  assert (path / "config.json").read_text() == text
  if name == "openqa":
    old, new = (load_pretrained(p / name) for p in (reference, path.parent))
    assert (old.retriever.block_records == new.retriever.block_records).all()
    words = "when was the capital founded"
    assert dict(old.tokenizer(words)) == dict(new.tokenizer(words))


def test_in_shards(drawn, tmp_path):
  model = drawn(RealmEmbedder(SIZES))
  save_pretrained(tmp_path / "m", model, shard_bytes=2000)
  assert len(list((tmp_path / "m").glob("model-*.safetensors"))) > 1
  read = load_pretrained(tmp_path / "m")
  jax.tree.map(np.testing.assert_array_equal, read.params, model.params)
  save_pretrained(tmp_path / "m", model)  # the older one is gone
  assert {p.name for p in (tmp_path / "m").iterdir()} == {
    "README.md",
    "config.json",
    "model.safetensors",
  }


def test_the_config_tells_class_and_index(drawn, tmp_path):
  model = dataclasses.replace(
    drawn(RealmForOpenQA(SIZES)), block_emb=np.ones((8, 4), np.float32)
  )
  save_pretrained(tmp_path / "m", model)
  values = json.loads((tmp_path / "m" / "config.json").read_text())
  assert values["architectures"] == ["RealmForOpenQA"]
  assert values["num_block_records"] == 8
  read = load_pretrained(tmp_path / "m")
  np.testing.assert_array_equal(read.block_emb, model.block_emb)


def test_two_embedders(drawn, tmp_path):
  model = drawn(RealmScorer(SIZES, RealmEmbedder(SIZES)))
  save_pretrained(tmp_path / "m", model)
  read = load_pretrained(tmp_path / "m")
  jax.tree.map(np.testing.assert_array_equal, read.params, model.params)
  deeper = RealmConfig(**{**SIZES.to_dict(), "num_hidden_layers": 2})
  model = drawn(RealmScorer(SIZES, RealmEmbedder(deeper)))
  with pytest.raises(InputError, match="parts of different configs"):
    save_pretrained(tmp_path / "other", model)
  assert not (tmp_path / "other").exists()


def test_the_card_says_what_is_known(drawn, tmp_path):
  model = drawn(RealmEmbedder(SIZES))
  save_pretrained(tmp_path / "m", model)
  unknown = (tmp_path / "m" / "README.md").read_text()
  assert "# RealmEmbedder\n" in unknown
  count = sum(x.size for x in jax.tree.leaves(model.params))
  assert f"| params | {count:,} |\n" in unknown
  assert "| intermediate_size | 5 |\n" in unknown
  assert unknown.count("Not known") == 2
  known = {"training": {"steps": 1380}, "data": {"corpus": "a|b"}}
  save_pretrained(tmp_path / "m", dataclasses.replace(model, origin=known))
  text = (tmp_path / "m" / "README.md").read_text()
  assert "## Training\n\n| | |\n|---|---|\n| steps | 1,380 |\n" in text
  assert "| corpus | a\\|b |" in text and "Not known" not in text


def test_a_card_of_ones_own_is_not_replaced(drawn, tmp_path):
  (tmp_path / "README.md").write_text("# My model\n")
  with pytest.raises(InputError, match=r"also holds README\.md"):
    save_pretrained(tmp_path, drawn(RealmEmbedder(SIZES)))
  assert (tmp_path / "README.md").read_text() == "# My model\n"


def test_other_files_are_not_replaced(drawn, tmp_path):
  model = drawn(RealmEmbedder(SIZES))
  (tmp_path / "notes.txt").write_text("mine")
  with pytest.raises(InputError, match=r"also holds notes\.txt"):
    save_pretrained(tmp_path, model)
  with pytest.raises(InputError, match="a file: wanted a directory"):
    save_pretrained(tmp_path / "notes.txt", model)
  assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_save_that_fails_leaves_the_older_one(drawn, tmp_path, monkeypatch):
  old, new = (drawn(RealmEmbedder(SIZES), seed) for seed in (0, 1))
  save_pretrained(tmp_path / "m", old)
  monkeypatch.setenv("REALM_FAILPOINT", "publish:disk_full")
  with pytest.raises(InputError, match="no space left"):
    save_pretrained(tmp_path / "m", new)
  assert [p.name for p in tmp_path.iterdir()] == ["m"]
  read = load_pretrained(tmp_path / "m")
  jax.tree.map(np.testing.assert_array_equal, read.params, old.params)


def test_a_function_as_activation_is_refused(drawn, tmp_path):
  config = RealmConfig(**{**SIZES.to_dict(), "hidden_act": jax.nn.relu})
  with pytest.raises(InputError, match="a function can't be written"):
    save_pretrained(tmp_path / "m", drawn(RealmEmbedder(config)))
  assert not list(tmp_path.iterdir())
