"""Index versions: whole or not at all, checked, kept, journaled."""

import errno
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.retrieval import index, journal, manifest, rows

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
  got, read = index.read_version(tmp_path, 3, expect)
  np.testing.assert_array_equal(got, emb)
  assert read.pop("sha256")
  chunks = {f"block_emb/c/{i}/0" for i in range(4)}
  assert set(read.pop("files")) == {"block_emb/zarr.json"} | chunks
  added = {"version": 3, "dtype": "float32", "shape": [N, P]}
  assert read == MANIFEST | added


def test_rows_that_are_not_finite_are_refused(tmp_path):
  emb = _emb()
  emb[[20, 31], [1, 4]] = np.nan, np.inf
  index.publish_version(tmp_path, 0, emb, MANIFEST)
  with pytest.raises(InputError, match=r"2 of 37 rows .* the first is row 20"):
    index.read_version(tmp_path, 0, {})


def test_takes_sharded_bfloat16(tmp_path):
  mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  emb = jnp.asarray(_emb()[:32], jnp.bfloat16)
  index.publish_version(tmp_path, 0, jax.device_put(emb, rows), MANIFEST)
  got, read = index.read_version(tmp_path, 0, {})
  assert read["dtype"] == "bfloat16"
  np.testing.assert_array_equal(got, np.asarray(emb))


def test_versions_are_ordered_by_number(tmp_path):
  assert index.latest_version(tmp_path) is None
  for version in (9, 10, 2):
    index.publish_version(tmp_path, version, _emb(version), MANIFEST)
  (tmp_path / "index" / "11").mkdir()  # not a published version
  assert index.list_versions(tmp_path) == [2, 9, 10]
  assert index.latest_version(tmp_path) == 10


def test_a_number_is_taken_by_one_publisher(tmp_path, monkeypatch):
  """Another one takes it between the look and the rename."""
  free, looked = index.next_version, []

  def next_version(run_dir):
    number = free(run_dir)
    if not looked:
      index.publish_version(run_dir, number, _emb(1), MANIFEST)
    looked.append(number)
    return number

  monkeypatch.setattr(index, "next_version", next_version)
  assert index.publish_next(tmp_path, _emb(2), MANIFEST) == 1
  assert looked == [0, 1]
  for version in (0, 1):
    got, _ = index.read_version(tmp_path, version, {"version": version})
    np.testing.assert_array_equal(got, _emb(version + 1))
  assert sorted(os.listdir(tmp_path / "index")) == ["0", "1"]


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


def test_no_flipped_byte_goes_unseen(tmp_path):
  """200 random ones, in any file, and each kind of file among them."""
  path = index.publish_version(tmp_path, 0, _emb(), MANIFEST)
  files = sorted(p for p in path.rglob("*") if p.is_file())
  sizes = [file.stat().st_size for file in files]
  rng = np.random.default_rng(0)
  ends, hit = np.cumsum(sizes), set()
  for place in rng.choice(sum(sizes), 200, replace=False):
    number = int(np.searchsorted(ends, place, side="right"))
    file, at = files[number], int(place - ends[number] + sizes[number])
    hit.add(file.name)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[at] ^= rng.integers(1, 256)
    file.write_bytes(flipped)
    for read in (
      lambda: manifest.verify(path),
      lambda: index.read_version(tmp_path, 0, {}),
    ):
      with pytest.raises(InputError) as e:
        read()
      assert str(path) in str(e.value) and "\n" not in str(e.value)
    file.write_bytes(whole)
  assert hit == {"0", "zarr.json", "manifest.json"}
  manifest.verify(path)


def test_a_truncated_manifest_is_named(tmp_path):
  path = index.publish_version(tmp_path, 0, _emb(), MANIFEST) / "manifest.json"
  whole = path.read_bytes()
  for size in (0, 1, 40, len(whole) - 1):
    path.write_bytes(whole[:size])
    with pytest.raises(InputError, match=r"manifest.json.* is damaged: delete"):
      index.read_version(tmp_path, 0, {})


def test_a_file_too_few_or_too_many_is_named(tmp_path):
  path = index.publish_version(tmp_path, 0, _emb(), MANIFEST)
  stray = path / "block_emb/c/9"
  stray.symlink_to(path)
  with pytest.raises(InputError, match=f"{stray}: no file of this index"):
    manifest.verify(path)
  stray.unlink()
  (path / "block_emb/c/2/0").unlink()
  with pytest.raises(InputError, match="block_emb/c/2/0 is missing, damaged"):
    index.read_version(tmp_path, 0, {})


def test_what_is_no_version_is_named(tmp_path):
  """A temporary of a writer that was killed, and any other directory."""
  tmp = tmp_path / "index" / ".tmp-1-99"
  tmp.mkdir(parents=True)
  with pytest.raises(InputError, match=r"tmp-1-99: no index version"):
    index.read_path(tmp, {})


_PUBLISH = """
import sys, numpy as np
from realm_jax.retrieval import index
from realm_jax.retrieval.manifest import KEYS
manifest = dict.fromkeys(KEYS, 0)
index.publish_version(sys.argv[1], 1, np.ones((3, 2)), manifest)
"""


@pytest.mark.parametrize(
  "where",
  ["publish", pytest.param("index_manifest", marks=pytest.mark.nightly)],
)
def test_a_killed_writer_leaves_no_version(tmp_path, where):
  index.publish_version(tmp_path, 0, _emb(), MANIFEST)
  command = [sys.executable, "-c", _PUBLISH, str(tmp_path)]
  env = os.environ | {"REALM_FAILPOINT": f"{where}:kill"}
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
  monkeypatch.setenv("REALM_FAILPOINT", "index_manifest:disk_full")
  with pytest.raises(InputError, match="no space left"):
    index.publish_version(tmp_path, 0, _emb(), MANIFEST)
  assert os.listdir(tmp_path / "index") == []


def test_tensorstore_says_disk_full_its_own_way(tmp_path, monkeypatch):
  def full(*args, **kwargs):
    raise ValueError(f"[OS error 28: ENOSPC {os.strerror(errno.ENOSPC)}]")

  monkeypatch.setattr(rows.tensorstore, "open", full)
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


def test_a_run_that_begins_anew_has_no_versions(tmp_path):
  index.start_over(tmp_path)
  index.publish_version(tmp_path, 7, _emb(), MANIFEST)
  journal.append_swap(tmp_path, {"step": 5})
  index.start_over(tmp_path)
  assert index.latest_version(tmp_path) is None
  assert journal.read_swaps(tmp_path) == []


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
