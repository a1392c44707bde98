"""A version in the making: gone on with, shared, and published by one."""

import contextlib
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.retrieval import index, manifest, staging

N, P, CHUNK = 23, 5, 7  # 4 chunks, the last of 2 rows
IDENTITY = {"params_hash": "aa", "chunk_blocks": CHUNK}
MADE_OF = {
  "params_step": 12,
  "params_hash": "aa",
  "tokenizer_hash": "bb",
  "corpus_hash": "cc",
  "template": "title+body",
}
EMB = np.random.default_rng(0).standard_normal((N, P)).astype(np.float32)


@contextlib.contextmanager
def begin(run, identity=IDENTITY, **more):
  stage = staging.Staging(run, identity, **more)
  with stage:
    stage.open_rows((N, P), np.float32, CHUNK)
    yield stage


def add(stage, *chunks):
  for chunk in chunks:
    rows = EMB[chunk * CHUNK : (chunk + 1) * CHUNK]
    stage.add(chunk, rows, seconds=0.25, flops=7)


def test_chunks_in_any_order_make_a_version(tmp_path):
  with staging.lock(tmp_path), begin(tmp_path) as stage:
    assert stage.num_chunks == 4
    add(stage, 2, 0, 3)
    with pytest.raises(ValueError, match="3 of 4 chunks"):
      stage.publish(MADE_OF)
    assert index.list_versions(tmp_path) == []
    add(stage, 1)
    path = stage.publish(MADE_OF)
  assert path == tmp_path / "index" / "0"
  assert sorted(os.listdir(tmp_path / "index")) == [".lock", "0"]
  got, made = index.read_version(tmp_path, 0, MADE_OF | {"shape": (N, P)})
  np.testing.assert_array_equal(got, EMB)
  assert (made["seconds"], made["dtype"]) == (1.0, "float32")
  assert made["flops"] == 4 * 7


def test_goes_on_with_what_is_finished(tmp_path):
  with begin(tmp_path) as stage:
    add(stage, 0, 1, 2)
  rows = tmp_path / "index/.build/version/block_emb"
  ledger = tmp_path / "index/.build/ledger/0-1.jsonl"
  ledger.write_text(ledger.read_text() + '{"chunk": 3, "sh')  # torn
  (rows / "c/3").mkdir()
  (rows / "c/3/0.__lock").touch()
  (rows / "c/3/0").write_bytes(b"torn")
  whole = (rows / "c/1/0").read_bytes()
  (rows / "c/1/0").write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
  (tmp_path / "index/.build/version/.tmp-blocks-3").mkdir()
  with begin(tmp_path) as stage:
    assert sorted(stage.finished()) == [0, 2]
    before = (rows / "c/0/0").stat()
    add(stage, 1, 3)
    stage.publish(MADE_OF)
  after = (tmp_path / "index/0/block_emb/c/0/0").stat()
  assert (before.st_ino, before.st_mtime_ns) == (
    after.st_ino,
    after.st_mtime_ns,
  )
  manifest.verify(tmp_path / "index/0")
  assert not list((tmp_path / "index/0").rglob("*__lock*"))
  np.testing.assert_array_equal(index.read_version(tmp_path, 0, {})[0], EMB)


def test_another_build_is_started_over_by_name(tmp_path):
  with begin(tmp_path) as stage:
    add(stage, 0, 1)
  said = []
  other = IDENTITY | {"params_hash": "bb"}
  with begin(tmp_path, other, say=said.append) as stage:
    assert stage.finished() == {}
  (text,) = said
  assert "index/.build is an unfinished build with another params_hash" in text
  assert "'aa', not 'bb'" in text
  assert os.listdir(tmp_path / "index") == [".build"]


def test_a_job_of_many_starts_nothing_over(tmp_path):
  with begin(tmp_path) as stage:
    add(stage, 0)
  other = IDENTITY | {"params_hash": "b"}
  with (
    pytest.raises(InputError, match=r"another params_hash .*'aa', not 'b'"),
    begin(tmp_path, other, job="0-2", alone=False),
  ):
    pass
  with begin(tmp_path) as stage:
    assert sorted(stage.finished()) == [0]


def refused(run, shared=False):
  """Whether a second builder is told so."""
  try:
    with staging.lock(run, shared):
      return False
  except InputError as e:
    return "index: another builder is at work here: wait" in str(e)


def test_a_second_builder_is_refused(tmp_path):
  with staging.lock(tmp_path):
    assert refused(tmp_path) and refused(tmp_path, shared=True)
  with staging.lock(tmp_path, shared=True):
    assert refused(tmp_path) and not refused(tmp_path, shared=True)
  assert not refused(tmp_path)


def test_a_shard_runs_once(tmp_path):
  with (
    begin(tmp_path, job="1-2"),
    begin(tmp_path, job="0-2"),
    pytest.raises(InputError, match="shard 1-2 is under way already"),
  ):
    staging.Staging(tmp_path, IDENTITY, job="1-2", alone=False)
  with begin(tmp_path, job="1-2"):
    pass


def test_the_last_job_to_end_is_alone(tmp_path):
  with (
    staging.lock(tmp_path, shared=True) as one,
    staging.lock(tmp_path, shared=True) as two,
  ):
    assert not one.alone()
    assert two.alone()
    assert not one.alone()


def test_a_number_taken_meanwhile_is_passed_over(tmp_path, monkeypatch):
  whole = index.next_version
  free = []

  def stale(run):  # a training run publishes just after the first look
    free.append(whole(run))
    if len(free) == 1:
      index.publish_version(run, free[0], EMB[:3], MADE_OF | {"seconds": 1})
    return free[-1]

  monkeypatch.setattr(index, "next_version", stale)
  with begin(tmp_path) as stage:
    add(stage, 0, 1, 2, 3)
    assert stage.publish(MADE_OF).name == "1"
  assert len(index.read_version(tmp_path, 0, {})[0]) == 3
  got, _ = index.read_version(tmp_path, 1, {"version": 1})
  np.testing.assert_array_equal(got, EMB)


def test_blocks_of_its_own(tmp_path):
  blocks = tmp_path / "some blocks"
  blocks.mkdir()
  (blocks / "tokens.npy").write_bytes(b"abc")
  with begin(tmp_path) as stage:
    add(stage, 0, 1, 2, 3)
    path = stage.publish(MADE_OF, blocks)
  assert index.newest_blocks(tmp_path) == path / "blocks"
  manifest.verify(path)
  (path / "blocks/tokens.npy").write_bytes(b"abd")
  with pytest.raises(InputError, match=r"blocks/tokens.npy is damaged"):
    manifest.verify(path)


@pytest.mark.parametrize("where", ["build_chunk_1", "index_manifest"])
def test_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch, where):
  with (
    monkeypatch.context() as m,
    pytest.raises(InputError, match="no space left"),
    begin(tmp_path) as stage,
  ):
    m.setenv("REALM_FAILPOINT", f"{where}:disk_full")
    add(stage, 0, 1, 2, 3)
    stage.publish(MADE_OF)
  assert index.list_versions(tmp_path) == []
  with begin(tmp_path) as stage:
    finished = sorted(stage.finished())
    assert finished == ([0] if where == "build_chunk_1" else [0, 1, 2, 3])
    add(stage, *({0, 1, 2, 3} - {*finished}))
    manifest.verify(stage.publish(MADE_OF))


# Runs builders that are killed, each in a fork of a process that has imported
# all and started nothing; then two at once.
_BUILDERS = """
import os, pathlib, sys
sys.path.insert(0, sys.argv[2])
from tests.retrieval import staging_test as t

def fork(where, run):
  if not (child := os.fork()):
    os.environ["REALM_FAILPOINT"] = where
    t.build(run)
    os._exit(0)
  return child

for where in t.KILLS:
  run = pathlib.Path(sys.argv[1]) / where
  if not (child := os.fork()):
    t.index.publish_version(run, 4, t.EMB[:3], t.MADE_OF | {"seconds": 1})
    os._exit(0)
  os.waitpid(child, 0)
  print(os.waitpid(fork(where + ":kill", run), 0)[1])
both = [fork("", pathlib.Path(sys.argv[1]) / "both") for _ in range(2)]
print(*sorted(os.waitpid(child, 0)[1] for child in both))
"""
KILLS = {  # where -> chunks that are finished then
  "build_chunk_2": [0, 1],
  "build_ledger_2": [0, 1, 2],
  "index_publish": [0, 1, 2, 3],
  "index_published": [],
}


def build(run):
  """A builder's whole life; exits with 2 where another is at work."""
  try:
    with staging.lock(run), begin(run) as stage:
      add(stage, *sorted({0, 1, 2, 3} - stage.finished().keys()))
      stage.publish(MADE_OF)
  except InputError as e:
    os._exit(2 if "another builder is at work" in str(e) else 1)


@pytest.fixture(scope="module")
def builders(tmp_path_factory):
  """The folder of their runs, after their ends."""
  folder = tmp_path_factory.mktemp("builders")
  root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
  done = subprocess.run(
    [sys.executable, "-c", _BUILDERS, folder, root],
    capture_output=True, text=True, check=True,
  )  # fmt: skip
  *killed, both = done.stdout.splitlines()
  assert killed == [str(int(signal.SIGKILL))] * len(KILLS), done.stderr
  assert both in ("0 0", f"0 {2 << 8}")
  return folder


@pytest.mark.parametrize("where", KILLS)
def test_a_killed_builder(builders, where):
  """It holds no lock any more; the versions are whole; the next goes on."""
  run, published = builders / where, where == "index_published"
  assert index.list_versions(run) == ([4, 5] if published else [4])
  for version in index.list_versions(run):
    manifest.verify(index.version_path(run, version))
  with staging.lock(run), begin(run) as stage:
    finished = sorted(stage.finished())
    assert finished == KILLS[where]
    add(stage, *({0, 1, 2, 3} - {*finished}))
    path = stage.publish(MADE_OF)
  manifest.verify(path)
  assert not (run / "index/.build").exists()


def test_of_two_at_once_one_wins(builders):
  """Or the second came after the first had ended."""
  run = builders / "both"
  assert index.list_versions(run) in ([0], [0, 1])
  for version in index.list_versions(run):
    manifest.verify(index.version_path(run, version))
    got, _ = index.read_version(run, version, MADE_OF)
    np.testing.assert_array_equal(got, EMB)
