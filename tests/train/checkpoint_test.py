"""Checkpoints: whole, checked, the right number of them."""

import errno
import itertools
import shutil
import threading
import time
import types

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint._src.checkpointers import async_checkpointer
from orbax.checkpoint._src.futures import future

from realm_jax import sharding
from realm_jax.config import InputError
from realm_jax.train import checkpoint, optimizer, sealed
from realm_jax.train.state import TrainState
from tests.train.bert_numbers import BERT


def _tree(seed: int, *, frozen: float = 0.0):
  rng = np.random.default_rng(seed)
  params = {
    "embedder": {"kernel": rng.normal(size=(40, 24)).astype(np.float32)},
    "encoder": {"bias": rng.normal(size=(3,)).astype(np.float32)},
  }
  tx = optimizer.bert_adam(0.1, 2, 9, lr_scales={"encoder": frozen}, **BERT)
  state = TrainState.create(jax.tree.map(jnp.asarray, params), tx)
  return {"state": state.apply_gradients(params, tx), "index": None}


def _assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def _batches():
  return iter(grain.MapDataset.range(50).shuffle(seed=1).to_iter_dataset())


@pytest.fixture
def saved(tmp_path):
  """Checkpoints 10 and 20 of one run."""
  checkpoints = checkpoint.Checkpoints(tmp_path, keep=2)
  for step in (10, 20):
    checkpoints.save(step, _tree(step), None, {"tokenizer_hash": f"h{step}"})
  checkpoints.wait()
  return checkpoints


def _names(checkpoints):
  return sorted(path.name for path in checkpoints.path.iterdir())


def _flip_a_byte(directory):
  """Flips one bit in the middle of the biggest file."""
  file = max(
    (f for f in directory.rglob("*") if f.is_file()),
    key=lambda f: f.stat().st_size,
  )
  data = bytearray(file.read_bytes())
  data[len(data) // 2] ^= 1
  file.write_bytes(data)
  return file


def test_tree_meta_and_iterator_come_back(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  assert checkpoints.latest() is None
  batches = _batches()
  taken = [next(batches) for _ in range(7)]
  checkpoints.save(7, _tree(1), batches, {"version": 3})
  coming = [next(batches) for _ in range(5)]
  again = _batches()
  assert [next(again) for _ in range(2)] == taken[:2]
  tree, meta = checkpoints.restore(checkpoints.latest(), _tree(2), again)
  _assert_equal(tree, _tree(1))
  assert meta == {"step": 7, "version": 3}
  assert [next(again) for _ in range(5)] == coming


def test_save_survives_donation(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  x = sharding.replicate(jnp.arange(50_000.0), sharding.make_mesh())
  double = jax.jit(lambda x: x * 2, donate_argnums=0)
  checkpoints.save(1, {"x": x})
  double(x)
  tree, _ = checkpoints.restore(checkpoints.latest(), {"x": jnp.zeros(50_000)})
  np.testing.assert_array_equal(tree["x"], np.arange(50_000.0))


def test_restores_onto_other_devices(tmp_path):
  rows = np.arange(8 * 6.0).reshape(8, 6)
  many = sharding.make_mesh()
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, {"x": sharding.shard_rows(rows, many)})
  one = sharding.replicate(np.zeros((8, 6)), sharding.make_mesh(data=1))
  tree, _ = checkpoints.restore(checkpoints.latest(), {"x": one})
  np.testing.assert_array_equal(tree["x"], rows)
  assert tree["x"].sharding == one.sharding


def test_uncommitted_array_stays_free_to_go_to_the_mesh(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, {"version": jnp.int32(5)})
  like = {"version": jnp.int32(0)}
  tree, _ = checkpoints.restore(checkpoints.latest(), like)
  on_mesh = sharding.replicate(np.int32(2), sharding.make_mesh())
  assert int(jax.jit(jnp.multiply)(tree["version"], on_mesh)) == 10


def test_only_the_newest_stay(saved):
  saved.save(30, _tree(30))
  assert saved.latest() == 30
  assert _names(saved) == ["20", "30"]


def test_what_is_not_sealed_does_not_count_and_is_removed(saved):
  (saved.path / "20" / "sha256.json").unlink()
  shutil.copytree(saved.path / "10", saved.path / "30.orbax-checkpoint-tmp")
  assert saved.latest() == 10
  assert checkpoint.restore_params(saved.path.parent)[2] == 10
  saved.save(20, _tree(20))
  assert saved.latest() == 20
  assert _names(saved) == ["10", "20"]


def test_opening_leaves_a_save_under_way_alone(saved):
  under_way = saved.path / "30.orbax-checkpoint-tmp"
  shutil.copytree(saved.path / "20", under_way)
  assert checkpoint.Checkpoints(saved.path.parent).latest() == 20
  assert under_way.exists()


def test_params_alone_as_numpy(saved):
  params, meta, step = checkpoint.restore_params(saved.path.parent)
  _assert_equal(params, jax.device_get(_tree(20)["state"].params))
  assert {type(leaf) for leaf in jax.tree.leaves(params)} == {np.ndarray}
  assert (meta["tokenizer_hash"], step) == ("h20", 20)
  params, _, step = checkpoint.restore_params(saved.path.parent, 10)
  _assert_equal(params, jax.device_get(_tree(10)["state"].params))


def test_flipped_byte_is_found_and_the_good_one_named(saved):
  file = _flip_a_byte(saved.path / "20")
  told = rf"{file} is not what was saved.*delete {saved.path}/20 .*step 10"
  with pytest.raises(InputError, match=told):
    saved.restore(20, _tree(0))
  with pytest.raises(InputError, match=told):
    checkpoint.restore_params(saved.path.parent)
  shutil.rmtree(saved.path / "20")  # the mend that the message names
  tree, _ = saved.restore(saved.latest(), _tree(0))
  _assert_equal(tree, _tree(10))


def test_missing_file_and_no_good_one(saved):
  _flip_a_byte(saved.path / "10")
  (saved.path / "20" / "meta" / "metadata").unlink()
  with pytest.raises(InputError, match=r"20/meta/metadata.*no older one is"):
    saved.restore(20, _tree(0))


def test_every_file_that_a_restore_reads_has_a_digest(saved):
  listed = checkpoint.files.read_json(saved.path / "20" / "sha256.json")
  present = {
    str(f.relative_to(saved.path / "20"))
    for f in (saved.path / "20").rglob("*")
    if f.is_file()
  }
  markers = {f for f in present if f.endswith("commit_success.txt")}
  assert present - markers - set(listed) == {
    "sha256.json",
    "_CHECKPOINT_METADATA",
  }


def test_another_model_is_told_by_name_and_shape(saved):
  other = _tree(0)
  other["state"].params["encoder"]["bias"] = jnp.zeros(4)
  with pytest.raises(
    InputError, match=r"state/params/encoder/bias is \(3,\) there and \(4,\)"
  ):
    saved.restore(20, other)
  with pytest.raises(InputError, match=r"mu/encoder/bias is missing there"):
    saved.restore(20, _tree(0, frozen=0.5))


def test_no_such_checkpoint(saved, tmp_path):
  with pytest.raises(InputError, match=r"checkpoints/15.*there are: 10, 20"):
    checkpoint.restore_params(saved.path.parent, 15)
  with pytest.raises(InputError, match=r"no checkpoint here"):
    checkpoint.restore_params(tmp_path / "elsewhere")


@pytest.mark.parametrize(
  ("fails", "what", "mend"),
  [
    ("checkpoint_seal:disk_full", "no space left", "free some"),
    ("checkpoint_sealed:disk_full", "no space left", "free some"),
    ("checkpoint_sealed:io_error", "Input/output error", "look at it"),
  ],
)
def test_a_disk_that_fails_leaves_the_older_ones_alone(
  saved, monkeypatch, fails, what, mend
):
  monkeypatch.setenv("REALM_FAILPOINT", fails)
  saved.save(30, _tree(30))
  with pytest.raises(
    InputError,
    match=rf"^{what} .*step 30 \(newest checkpoint: 20\): {mend} and run",
  ):
    saved.wait()
  assert _names(saved) == ["10", "20"]
  monkeypatch.delenv("REALM_FAILPOINT")
  saved.save(40, _tree(40))
  assert saved.latest() == 40


def test_full_disk_as_tensorstore_tells_it():
  cause = ValueError("RESOURCE_EXHAUSTED: ...: No space left on device [...]")
  assert checkpoint._disk_error(cause) == errno.ENOSPC
  assert checkpoint._disk_error(ValueError("something else")) is None


def test_a_save_that_does_not_end_has_a_bound(saved, monkeypatch):
  over = threading.Event()
  seal = sealed.seal

  def slow(*args, **kwargs):
    over.wait(20)
    seal(*args, **kwargs)

  monkeypatch.setattr(sealed, "seal", slow)
  monkeypatch.setattr(checkpoint, "_SAVE_SECONDS", 0.05)
  saved.save(30, _tree(30))
  with pytest.raises(
    InputError, match=r"step 30 is not saved after 0.05 s .*checkpoint: 20"
  ):
    saved.wait()
  over.set()


def test_a_clock_that_jumps_fails_no_save(saved, monkeypatch):
  """Orbax waits by the wall clock; each look at it sees another day."""
  days, clock = itertools.count(1), types.SimpleNamespace(**vars(time))
  clock.time = lambda: next(days) * 86400.0
  for module in (future, async_checkpointer):
    monkeypatch.setattr(module, "time", clock)
  saved.save(30, _tree(30))
  assert saved.latest() == 30 and next(days) > 5
