"""Index versions: whole or not at all, checked, kept, journaled."""

import errno
import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.retrieval import index

N, P = 37, 5
MANIFEST = {
  "params_step": 12,
  "params_hash": "aa",
  "tokenizer_hash": "bb",
  "corpus_hash": "cc",
  "template": "title+body",
  "seconds": 0.1 + 0.2,
}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
  monkeypatch.setattr(index, "_CHUNK_BYTES", 10 * P * 4)  # 4 chunks of N rows


def _emb(seed=0):
  return np.random.default_rng(seed).normal(size=(N, P)).astype(np.float32)


def test_reads_back_what_was_published(tmp_path):
  emb = _emb()
  emb[10:20] = 0  # a chunk equal to the fill value is stored too
  path = index.publish_version(tmp_path, 3, emb, MANIFEST)
  assert path == tmp_path / "index" / "3"
  assert len(list((path / "block_emb/c").iterdir())) == 4
  assert os.listdir(tmp_path / "index") == ["3"]
  expect = {"tokenizer_hash": "bb", "shape": (N, P)}
  got, manifest = index.read_version(tmp_path, 3, expect)
  np.testing.assert_array_equal(got, emb)
  assert manifest.pop("sha256")
  added = {"version": 3, "dtype": "float32", "shape": [N, P]}
  assert manifest == MANIFEST | added


def test_takes_sharded_bfloat16(tmp_path):
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  emb = jnp.asarray(_emb()[:32], jnp.bfloat16)
  index.publish_version(tmp_path, 0, jax.device_put(emb, rows), MANIFEST)
  got, manifest = index.read_version(tmp_path, 0, {})
  assert manifest["dtype"] == "bfloat16"
  np.testing.assert_array_equal(got, np.asarray(emb))


def test_versions_are_ordered_by_number(tmp_path):
  assert index.latest_version(tmp_path) is None
  for version in (9, 10, 2):
    index.publish_version(tmp_path, version, _emb(version), MANIFEST)
  (tmp_path / "index" / "11").mkdir()  # not a published version
  assert index.list_versions(tmp_path) == [2, 9, 10]
  assert index.latest_version(tmp_path) == 10


def test_the_same_number_is_replaced(tmp_path):
  for seed in (1, 2):
    index.publish_version(tmp_path, 4, _emb(seed), MANIFEST)
  got, _ = index.read_version(tmp_path, 4, {})
  np.testing.assert_array_equal(got, _emb(2))


@pytest.mark.parametrize(
  "expect",
  [
    {"tokenizer_hash": "other"},
    {"corpus_hash": "other"},
    {"params_hash": "other"},
    {"template": "body"},
    {"shape": (N + 1, P)},
  ],
)
def test_a_mismatch_is_refused_by_name(tmp_path, expect):
  index.publish_version(tmp_path, 0, _emb(), MANIFEST)
  with pytest.raises(InputError) as e:
    index.read_version(tmp_path, 0, {"params_step": 12} | expect)
  key, value = next(iter(expect.items()))
  assert f"manifest.json: {key} is" in str(e.value)
  assert str(value).strip("()") in str(e.value)


def test_a_missing_version_names_those_there(tmp_path):
  with pytest.raises(InputError, match="there are: none"):
    index.read_version(tmp_path, 0, {})
  index.publish_version(tmp_path, 5, _emb(), MANIFEST)
  with pytest.raises(InputError, match="there are: 5"):
    index.read_version(tmp_path, 6, {})


def test_an_incomplete_manifest_is_not_published(tmp_path):
  with pytest.raises(ValueError, match="template"):
    rest = {k: v for k, v in MANIFEST.items() if k != "template"}
    index.publish_version(tmp_path, 0, _emb(), rest)
  assert index.latest_version(tmp_path) is None


def test_no_flipped_bit_goes_unseen(tmp_path):
  path = index.publish_version(tmp_path, 0, _emb(), MANIFEST)
  expect = {"version": 0}
  for file in [p for p in path.rglob("*") if p.is_file()]:
    whole = file.read_bytes()
    for at in range(0, len(whole), 3):
      flipped = bytearray(whole)
      flipped[at] ^= 1 << (at % 8)
      file.write_bytes(flipped)
      try:  # a flip that changes no meaning may pass: white space, a fill value
        got, manifest = index.read_version(tmp_path, 0, expect)
      except InputError as e:
        assert str(path) in str(e) and "\n" not in str(e)
        continue
      assert file.name != "0", f"byte {at} of a chunk"
      np.testing.assert_array_equal(got, _emb())
      assert manifest["params_step"] == 12
    file.write_bytes(whole)


def test_a_lost_chunk_is_not_read_as_zeros(tmp_path):
  path = index.publish_version(tmp_path, 0, _emb(), MANIFEST)
  (path / "block_emb/c/2/0").unlink()
  with pytest.raises(InputError, match="damaged"):
    index.read_version(tmp_path, 0, {})


_PUBLISH = """
import sys, numpy as np
from realm_jax.retrieval import index
from realm_jax.retrieval.index import MANIFEST_KEYS
manifest = dict.fromkeys(MANIFEST_KEYS, 0)
index.publish_version(sys.argv[1], 1, np.ones((3, 2)), manifest)
"""


@pytest.mark.parametrize("where", ["index_manifest", "publish"])
def test_a_killed_writer_leaves_no_version(tmp_path, where):
  index.publish_version(tmp_path, 0, _emb(), MANIFEST)
  command = [sys.executable, "-c", _PUBLISH, str(tmp_path)]
  env = os.environ | {"REALM_FAIL_AT": f"{where}:kill"}
  killed = subprocess.run(command, env=env, check=False)
  assert killed.returncode == -signal.SIGKILL
  assert index.list_versions(tmp_path) == [0]
  index.retain(tmp_path, keep=1)  # version 1 may be another's work under way
  assert len(os.listdir(tmp_path / "index")) == 2
  subprocess.run(command, check=True)
  assert index.list_versions(tmp_path) == [0, 1]
  index.retain(tmp_path, keep=2)
  assert sorted(os.listdir(tmp_path / "index")) == ["0", "1"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
  monkeypatch.setenv("REALM_FAIL_AT", "index_manifest:disk_full")
  with pytest.raises(InputError, match="no space left"):
    index.publish_version(tmp_path, 0, _emb(), MANIFEST)
  assert os.listdir(tmp_path / "index") == []


def test_tensorstore_says_disk_full_its_own_way(tmp_path, monkeypatch):
  def full(*args, **kwargs):
    raise ValueError(f"[OS error 28: ENOSPC {os.strerror(errno.ENOSPC)}]")

  monkeypatch.setattr(index.tensorstore, "open", full)
  with pytest.raises(InputError, match="no space left"):
    index.publish_version(tmp_path, 0, _emb(), MANIFEST)


def test_retain_keeps_newest_and_pinned(tmp_path):
  for version in (1, 2, 3, 9, 10):
    index.publish_version(tmp_path, version, _emb(), MANIFEST)
  assert index.retain(tmp_path, keep=2, pinned=[2, 10]) == [1, 3]
  assert index.list_versions(tmp_path) == [2, 9, 10]
  assert sorted(os.listdir(tmp_path / "index")) == ["10", "2", "9"]
  assert index.retain(tmp_path, keep=7) == []
  with pytest.raises(InputError, match="keep=0"):
    index.retain(tmp_path, keep=0)


def test_journal_survives_a_torn_line(tmp_path):
  assert index.read_swaps(tmp_path) == []
  swaps = [{"step": 5, "version": 1}, {"step": 9, "version": 2}]
  index.append_swap(tmp_path, swaps[0])
  journal = tmp_path / "index/swaps.jsonl"
  with open(journal, "a") as f:
    f.write('{"step": 9, "ver')
  assert index.read_swaps(tmp_path) == swaps[:1]
  index.append_swap(tmp_path, swaps[1])
  assert index.read_swaps(tmp_path) == swaps
  assert [json.loads(x) for x in journal.read_text().splitlines()] == swaps
  index.truncate_swaps(tmp_path, after_step=8)
  assert index.read_swaps(tmp_path) == swaps[:1]


def test_a_run_that_begins_anew_has_no_versions(tmp_path):
  index.start_over(tmp_path)
  index.publish_version(tmp_path, 7, _emb(), MANIFEST)
  index.append_swap(tmp_path, {"step": 5})
  index.start_over(tmp_path)
  assert index.latest_version(tmp_path) is None
  assert index.read_swaps(tmp_path) == []


def test_a_damaged_journal_is_named(tmp_path):
  index.append_swap(tmp_path, {"step": 5})
  journal = tmp_path / "index/swaps.jsonl"
  journal.write_text("nonsense\n" + journal.read_text())
  with pytest.raises(InputError, match=r"swaps.jsonl:1 is damaged"):
    index.read_swaps(tmp_path)


def test_params_hash_sees_names_values_and_types():
  tree = {"b": np.arange(3.0), "a": {"w": np.ones((2, 5), np.float32)}}
  same = {"a": {"w": jnp.ones((2, 5))}, "b": np.arange(3.0)}
  assert index.params_hash(tree) == index.params_hash(same)
  others = [
    tree | {"b": np.array([0, 1, 2.5])},
    tree | {"b": np.arange(3)},
    {"c": tree["b"], "a": tree["a"]},
    tree | {"a": {"w": np.ones((5, 2), np.float32)}},
  ]
  hashes = {index.params_hash(t) for t in [tree, *others]}
  assert len(hashes) == 5
