"""kill -9 at random moments of a build: what must hold afterwards.

Builders are forked from a process that has imported all and started nothing, so
a life is a second or two. Half of them are killed at a random moment after they
have opened the index, half at a random moment after they began to publish.
After each kill, every published version is verified to the last byte; and the
chunks that were finished by then must be the same files (inode, time of change)
after the next builder's life. When a version is published, the run gets a newer
checkpoint, so that there is another to build.
"""

import os
import pathlib
import random
import signal
import time

from benchmarks import synthetic
from realm_jax.retrieval import index, manifest, staging
from realm_jax.retrieval.rows import chunk_name
from realm_jax.train import build_index

_BLOCKS = 600
_CHUNK = 16  # blocks: 38 chunks
_BUILD, _PUBLISH = b"b", b"p"  # what a builder says when it begins to
_BUILD_SECONDS, _PUBLISH_SECONDS = 1.0, 0.1  # of a first life, to begin with


def kill_builders(folder: pathlib.Path, num_kills: int, seed: int = 0) -> str:
  """Kills so many builders; returns what was found, in words.

  Raises:
    InputError: a version is damaged.
    AssertionError: a finished chunk was embedded again.
  """
  run, spare = folder / "run", folder / "spare"
  _in_a_fork(lambda: _prepare(folder, run, spare, num_kills + 1))
  rng = random.Random(seed)
  counts = dict.fromkeys(("building", "publishing", "published", "ended"), 0)
  kept = checked = 0
  finished: dict[int, tuple] = {}
  longest = {_BUILD: _BUILD_SECONDS, _PUBLISH: _PUBLISH_SECONDS}
  kills = 0
  while kills < num_kills:
    before = index.latest_version(run)
    wait_for = _BUILD if kills % 2 == 0 else _PUBLISH
    killed = _live(run, wait_for, rng, longest)
    after = index.latest_version(run)
    kills += killed
    published = after != before
    place = index.version_path(run, after) if published else _build(run)
    for chunk, was in finished.items():
      assert _file(place, chunk) == was, f"chunk {chunk} was embedded again"
      kept += 1
    for version in index.list_versions(run):
      manifest.verify(index.version_path(run, version))
      checked += 1
    if not killed:
      counts["ended"] += 1
    elif published:
      counts["published"] += 1
    else:
      counts["building" if wait_for == _BUILD else "publishing"] += 1
    finished = {}
    if published:
      newer = sorted(spare.iterdir(), key=lambda path: int(path.name))[0]
      os.rename(newer, run / "checkpoints" / newer.name)
    else:
      for chunk in staging.finished_chunks(run / "index" / ".build"):
        finished[chunk] = _file(_build(run), chunk)
  _in_a_fork(lambda: build_index.build_index(run, chunk_blocks=_CHUNK))
  newest = index.latest_version(run)
  manifest.verify(index.version_path(run, newest))
  return (
    f"{kills} builders killed: {counts['building']} while they embedded,"
    f" {counts['publishing']} after they began to publish,"
    f" {counts['published']} after the version was there;"
    f" {counts['ended']} more ended by themselves\n"
    f"versions verified after each: {checked} times, none damaged; the newest is"
    f" {newest}\n"
    f"chunks that were finished when a builder died: {kept}, embedded again: 0"
  )


def _prepare(folder, run, spare, num_steps) -> None:
  """A run of one checkpoint, and later ones in `spare`."""
  config = synthetic.retriever_config(
    _BLOCKS, layers=1, hidden=64, block_len=64
  )
  synthetic.prepare_words(config, folder)
  steps = range(1, num_steps + 1)
  synthetic.make_run(config, run, steps)
  spare.mkdir()
  for step in steps[1:]:
    os.rename(run / "checkpoints" / str(step), spare / str(step))


def _live(run, wait_for, rng, longest) -> bool:
  """A builder's life; whether it was killed before its end."""
  reader, writer = os.pipe()
  child = os.fork()
  if not child:
    os.close(reader)
    _quietly(lambda: _builder(run, writer))
  os.close(writer)
  while (said := os.read(reader, 1)) not in (wait_for, b""):
    pass
  began = time.monotonic()
  end = began + rng.uniform(0, longest[wait_for]) * bool(said)
  while time.monotonic() < end and not _over(child):
    time.sleep(0.001)
  os.close(reader)
  try:
    os.kill(child, signal.SIGKILL)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  except (ProcessLookupError, ChildProcessError):
    killed = 0
  if not killed:  # it was faster: the next are given less time
    longest[wait_for] = max(time.monotonic() - began, 0.01)
  return killed == -signal.SIGKILL


def _over(child: int) -> bool:
  """Whether a child has ended; it is left to be waited for."""
  flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
  return os.waitid(os.P_PID, child, flags) is not None


def _builder(run, writer) -> None:
  """Builds, and says when it begins to and when it publishes."""
  open_rows, publish = staging.Staging.open_rows, staging.Staging.publish

  def told(method, word):
    def call(*args):
      os.write(writer, word)
      return method(*args)

    return call

  staging.Staging.open_rows = told(open_rows, _BUILD)
  staging.Staging.publish = told(publish, _PUBLISH)
  build_index.build_index(run, chunk_blocks=_CHUNK)


def _in_a_fork(work) -> None:
  """JAX runs in children only: a process that runs it cannot be forked."""
  child = os.fork()
  if not child:
    _quietly(work)
  status = os.waitpid(child, 0)[1]
  assert status == 0, f"a child ended with status {status}"


def _quietly(work) -> None:
  """Ends the process with the work."""
  null = os.open(os.devnull, os.O_WRONLY)
  os.dup2(null, 2)
  work()
  os._exit(0)


def _build(run) -> pathlib.Path:
  return run / "index" / ".build" / "version"


def _file(version: pathlib.Path, chunk: int) -> tuple[int, int]:
  stat = (version / index.ROWS / chunk_name(chunk)).stat()
  return stat.st_ino, stat.st_mtime_ns
