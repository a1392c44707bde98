"""A refresh worker: makes index versions of a run's checkpoints, beside the run.

It shares nothing with the trainer but the run's directory. Several workers
share the chunks of one build: each claims a chunk at a time by a lock that the
kernel frees when its holder dies, so a dead worker's chunk is another one's and
no finished chunk is embedded again. The last to end publishes. Versions only go
forward: of params that are older than a version's, none is made.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from realm_jax import files, sharding
from realm_jax.config import InputError
from realm_jax.retrieval import heartbeat, staging, vectors
from realm_jax.retrieval import index as versions
from realm_jax.train import build_index, checkpoint, sealed
from realm_jax.train.build_index import Source
from realm_jax.train.metrics import note

_BEAT_SECONDS = 5.0  # between two heartbeats within a chunk
_MAX_BACKOFF_SECONDS = 60.0


class GivesUp(InputError):
  """A worker's last word."""


OpenSource = Callable[[pathlib.Path, int], Source]


@dataclasses.dataclass(frozen=True)
class Options:
  """How a worker goes about it: the fields of experiments/refresh_worker.py.

  Attributes:
    name: of this worker, in RUN/workers.
    chunk_blocks: blocks embedded and written at a time.
    poll_seconds: between two looks for a checkpoint.
    wait_seconds: so long without a new one, and it ends.
    retries: failures in a row, such as a full disk, that it gets over.
    backoff_seconds: before the first of these; twice as long each time.
    parent: the process it ends with; 0: none.
  """

  name: str
  chunk_blocks: int
  poll_seconds: float
  wait_seconds: float
  retries: int
  backoff_seconds: float
  parent: int = 0


def work(
  workdir: str | pathlib.Path,
  options: Options,
  open_source: OpenSource = build_index.open_source,
) -> None:
  """Works until the run has ended and its last version is there.

  Raises:
    InputError: the name is taken.
    GivesUp: no checkpoint came for too long, or one failure too many.
    SystemExit: told to stop by SIGTERM, or the parent is gone.
  """
  with heartbeat.held(workdir, options.name) as heart, _ending_on_sigterm():
    worker = _Worker(pathlib.Path(workdir), options, heart, open_source)
    try:
      worker.run()
    except SystemExit:
      heart.beat(state="stopped", message="stopped")
      raise
    except GivesUp as e:
      heart.beat(state="gave up", message=str(e))
      raise


class _Worker:
  """One worker's life."""

  def __init__(self, workdir, options, heart, open_source):
    self._workdir, self._options = workdir, options
    self._heart, self._open_source = heart, open_source
    self._checkpoints = checkpoint.folder(workdir)
    self._bad: set[int] = set()  # checkpoints whose params no index can be of
    self._source: Source | None = None
    self._newest, self._news = None, time.monotonic()

  def run(self) -> None:
    """Rounds of looking and building, with retries."""
    failures = 0
    while True:
      try:
        wait = self._round()
        if wait is None:
          return
        failures = 0
      except vectors.NotFinite as e:
        self._bad.add(self._source.manifest["params_step"])
        self._say("waiting", f"{e}; waits for a newer checkpoint")
        wait = 0.0
      except GivesUp:
        raise
      except (InputError, OSError) as e:
        failures += 1
        if failures > self._options.retries:
          raise GivesUp(
            f"worker {self._options.name} gives up after {failures} failures,"
            f" the last: {e}"
          ) from e
        wait = self._options.backoff_seconds * 2 ** (failures - 1)
        wait = min(wait, _MAX_BACKOFF_SECONDS)
        self._say("failing", f"{e}; again in {wait:g} s")
      self._sleep(wait)

  def _round(self) -> float | None:
    """Looks, and builds if there is something to build.

    Returns:
      Seconds to wait before the next round; None: the run has ended.
    """
    step = self._look()
    if step is None:
      return self._wait("no checkpoint yet")
    config = checkpoint.read_run(self._workdir)
    if self._source is None and not self._open(step):
      return 0.0
    have = self._have()
    last = step >= config["train"]["num_steps"]
    if last and have >= step:
      self._say("ended", f"the run has ended; version of step {have} is there")
      return None
    due = last or step >= have + config["refresh"]["every_steps"]
    held = staging.unfinished(self._workdir)
    if not due and not (held and held["params_step"] > have):
      return self._wait(f"version of step {have} is there")
    try:
      with (
        staging.lock(self._workdir, shared=True) as lock,
        self._stage(lock, step, have, due) as stage,
      ):
        if stage and self._build(lock, stage):
          return 0.0
    except staging.Busy as e:
      return self._wait(str(e))
    return self._wait("others are building")

  def _look(self) -> int | None:
    """The newest checkpoint that an index can be of."""
    steps = [s for s in sealed.numbers(self._checkpoints) if s not in self._bad]
    newest = max(steps, default=None)
    if newest != self._newest:
      self._newest, self._news = newest, time.monotonic()
    return newest

  def _have(self) -> int:
    """The step of the newest version's params; -1: there is no version."""
    of_params = ("params_step", "params_hash")
    expect = {
      k: v for k, v in self._source.manifest.items() if k not in of_params
    }
    expect["run"] = versions.run_id(self._workdir)
    found = versions.newest_of(self._workdir, expect)
    return -1 if found is None else found[1]["params_step"]

  def _open(self, step: int) -> bool:
    """Takes a checkpoint's params; False: it was deleted meanwhile."""
    if self._source and self._source.manifest["params_step"] == step:
      return True
    try:
      self._source = self._open_source(self._workdir, step)
    except Exception:  # a deleted file can show as anything
      if step in sealed.numbers(self._checkpoints):
        raise
      return False
    leaves = jax.tree.leaves(self._source.params)
    if not all(np.isfinite(leaf).all() for leaf in leaves):
      raise vectors.NotFinite(
        f"{self._checkpoints / str(step)}: params that are not finite: no"
        " index is made of them"
      )
    return True

  @contextlib.contextmanager
  def _stage(self, lock, step, have, due) -> Iterator[staging.Staging | None]:
    """The build to work on, shared: one that is there, or else a new one."""
    alone = lock.alone()
    if not alone and not lock.share():
      raise staging.Busy("another builder is at work")
    held = staging.unfinished(self._workdir)
    goes_on = held and held["params_step"] > have and self._has(held)
    if not goes_on and not (alone and due):
      yield None
      return
    chunk_blocks = self._options.chunk_blocks
    if goes_on:
      step = held["params_step"]
      chunk_blocks = held.get("chunk_blocks", chunk_blocks)
    if not self._open(step):
      yield None
      return
    identity = {**self._source.manifest, "chunk_blocks": chunk_blocks}
    if not alone and identity != held:
      yield None  # a build of something else
      return
    with staging.Staging(
      self._workdir, identity, job=self._options.name, alone=alone, say=note
    ) as stage:
      rows = len(self._source.store), self._source.buckets.size
      stage.open_rows(rows, np.float32, chunk_blocks)
      if alone and not lock.share():
        raise staging.Busy("another builder is at work")
      yield stage if staging.unfinished(self._workdir) == identity else None

  def _has(self, identity: dict[str, Any]) -> bool:
    step = identity["params_step"]
    steps = sealed.numbers(self._checkpoints)
    return step not in self._bad and step in steps

  def _build(self, lock: staging.Lock, stage: staging.Staging) -> bool:
    """Embeds what nobody else does; publishes, where nobody else is left.

    Returns:
      Whether a version was published.
    """
    finished, total = stage.finished(), stage.num_chunks
    pending = [c for c in range(total) if c not in finished]
    params = sharding.replicate(self._source.params, self._source.mesh)
    step = self._source.manifest["params_step"]
    self._beat("embedding", step, total - len(pending), total)
    while pending:
      left = []
      for chunk in pending:
        with stage.claim(chunk) as mine:
          if not mine:
            left.append(chunk)
          elif not stage.is_finished(chunk):
            self._embed(stage, params, chunk)
        self._beat("embedding", step, total - len(pending), total)
        self._check_parent()
      if len(left) == len(pending):
        self._sleep(self._options.poll_seconds)  # others are at them
      pending = left
    if not lock.alone() or self._have() >= step:
      return False
    files.fail_point("worker_publish")
    source = self._source
    path = build_index.publish(
      source, stage, source.manifest, None, source.blocks
    )
    self._heart.beat(state="published", version=int(path.name))
    return True

  def _embed(self, stage, params, chunk) -> None:
    source, beaten = self._source, time.monotonic()

    def on_blocks(count):
      nonlocal beaten
      del count
      if time.monotonic() - beaten > _BEAT_SECONDS:
        beaten = time.monotonic()
        self._heart.beat()

    build_index.embed_chunk(
      source, source.store, stage, params, chunk, on_blocks
    )

  def _beat(self, state, step, done, total) -> None:
    message = f"{state} step {step}, {done} of {total} chunks"
    self._heart.beat(
      state=state, params_step=step, done=done, total=total, message=message
    )

  def _say(self, state: str, message: str) -> None:
    note(f"worker {self._options.name}: {message}")
    self._heart.beat(state=state, message=message)

  def _wait(self, for_what: str) -> float:
    """Seconds to wait for something new.

    Raises:
      GivesUp: there was nothing for too long.
    """
    most = self._options.wait_seconds
    if time.monotonic() - self._news > most:
      raise GivesUp(
        f"worker {self._options.name} ends: no new checkpoint in {most:g} s"
        f" ({for_what}): is the run at work?"
      )
    self._heart.beat(state="waiting", message=f"waiting: {for_what}")
    return self._options.poll_seconds

  def _sleep(self, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
      self._check_parent()
      time.sleep(min(left, 1.0))

  def _check_parent(self) -> None:
    if self._options.parent not in (0, os.getppid()):
      raise SystemExit(0)


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
  """SIGTERM ends the process at once and well: what is unfinished is dropped."""

  def end(number, frame):
    del number, frame
    raise SystemExit(0)

  before = signal.signal(signal.SIGTERM, end)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
