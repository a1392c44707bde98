"""A run's config: one run a workdir; what came later is filled in, what is
missing is named."""

import json

import pytest

from realm_jax import run_config
from realm_jax.config import InputError

OLD = {"seed": 3, "mesh": {"data": -1}, "train": {"batch_size": 8}}


@pytest.fixture
def run(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(OLD))
  return tmp_path


def test_fields_that_came_later_have_what_was_done_before(run):
  config = run_config.read(run)
  assert (config["seed"], config.train.batch_size) == (3, 8)
  assert dict(config.mesh.items()) == {"data": -1, "fsdp": 1, "tensor": 1}
  assert config.compute_dtype == "float32" and config.contiguous is True
  assert config.attention == "xla"
  assert {**config["mesh"]}["tensor"] == 1
  assert "fill" not in config  # a group that such a run has nothing of


def test_later_fields_that_are_there_stay(run):
  new = OLD | {"contiguous": False, "mesh": {"data": 2, "fsdp": 4}}
  (run / "config.json").write_text(json.dumps(new))
  config = run_config.read(run)
  assert config.contiguous is False
  assert config.mesh.to_dict() == {"data": 2, "fsdp": 4, "tensor": 1}


@pytest.mark.parametrize(
  ("use", "field"),
  [
    (lambda c: c["mask_template"], "mask_template"),
    (lambda c: c.joint_len, "joint_len"),
    (lambda c: c["train"]["num_steps"], "train.num_steps"),
    (lambda c: c.train.num_steps, "train.num_steps"),
    (lambda c: c.refresh.slice_size, "refresh"),
  ],
)
def test_a_missing_field_is_named_in_a_line(run, use, field):
  with pytest.raises(InputError) as e:
    use(run_config.read(run))
  said = str(e.value)
  assert said.startswith(f"{run / 'config.json'}: this run has no {field}:")
  assert "\n" not in said


def test_one_may_ask_whether_a_field_is_there(run):
  config = run_config.read(run)
  assert config.get("joint_len", 5) == 5
  assert config.train.get("batch_size") == 8
  assert "joint_len" not in config and "seed" in config


@pytest.mark.parametrize("text", ["[1]", "null", '"x"'])
def test_what_is_no_config_is_refused(tmp_path, text):
  (tmp_path / "config.json").write_text(text)
  for use in (run_config.read, lambda path: run_config.claim(path, OLD)):
    with pytest.raises(InputError, match="wanted an object"):
      use(tmp_path)
  assert (tmp_path / "config.json").read_text() == text


def test_flatten(run):
  flat = run_config.flatten(run_config.read(run))
  assert flat["train.batch_size"] == 8 and flat["mesh.fsdp"] == 1
  assert run_config.flatten(OLD) == {
    "seed": 3,
    "mesh.data": -1,
    "train.batch_size": 8,
  }


CONFIG = {
  "seed": 1,
  "train": {"batch_size": 8, "num_steps": 100, "betas": (0.9, 0.999)},
  "init": {"embedder": ""},
}


def _config(**train):
  return {**CONFIG, "train": {**CONFIG["train"], **train}}


def test_second_start_of_the_same_run(tmp_path):
  run_config.claim(tmp_path / "run", CONFIG)
  run_config.claim(tmp_path / "run", _config(num_steps=200))
  held = run_config.read(tmp_path / "run")
  assert held.train.to_dict() == {
    "batch_size": 8,
    "num_steps": 200,
    "betas": [0.9, 0.999],
  }


def test_another_config_is_refused_and_not_written(tmp_path):
  run_config.claim(tmp_path, CONFIG)
  for other, told in (
    (_config(batch_size=9), r"train\.batch_size=8, not 9"),
    (_config(clip_norm=1.0), r"train\.clip_norm=not set, not 1\.0"),
    ({**CONFIG, "seed": 2}, r"seed=1, not 2.*--config\.seed=1"),
  ):
    with pytest.raises(InputError, match=told):
      run_config.claim(tmp_path, other)
  assert run_config.read(tmp_path)["seed"] == 1


def test_a_run_from_before_a_field_goes_on_if_it_did_the_same(tmp_path):
  run_config.claim(tmp_path, CONFIG)
  run_config.claim(tmp_path, CONFIG | {"masking": "salient"})
  other = CONFIG | {"masking": "salient", "query_params": "index"}
  with pytest.raises(InputError, match=r"query_params=current, not index"):
    run_config.claim(tmp_path, other)


def test_read_run_of_no_run(tmp_path):
  with pytest.raises(InputError, match=r"config\.json: no such file"):
    run_config.read(tmp_path)
