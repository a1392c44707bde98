"""A run's config: what came later is filled in, what is missing is named."""

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
  with pytest.raises(InputError, match="wanted an object"):
    run_config.read(tmp_path)


def test_flatten(run):
  flat = run_config.flatten(run_config.read(run))
  assert flat["train.batch_size"] == 8 and flat["mesh.fsdp"] == 1
  assert run_config.flatten(OLD) == {
    "seed": 3,
    "mesh.data": -1,
    "train.batch_size": 8,
  }
