"""A refresh worker: makes index versions of a run's checkpoints, beside the run.

It shares nothing with the trainer but the run's directory. Several workers
share the chunks of one build. Versions only go forward: of params that are older
than a version's, none is made.
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

from realm_jax import files, run_config
from realm_jax.config import InputError
from realm_jax.retrieval import heartbeat, staging, vectors
from realm_jax.retrieval import index as versions
from realm_jax.train import build_index, checkpoint, sealed, shared_build
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
    if self._source is None and self._open(step) is None:
      return 0.0
    config = run_config.read(self._workdir)
    have = self._have()
    last = step >= config["train"]["num_steps"]
    if last and have >= step:
      self._say("ended", f"the run has ended; version of step {have} is there")
      return None
    due = last or step >= have + config["refresh"]["every_steps"]
    try:
      published = self._build(step if due else None, have)
    except staging.Busy as e:
      return self._wait(str(e))
    return 0.0 if published else self._wait(f"version of step {have} is there")

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

  def _open(self, step: int) -> Source | None:
    """A checkpoint's params; None: it was deleted meanwhile."""
    of = {"params_step": step, "run": versions.run_id(self._workdir)}
    if self._source and of.items() <= self._source.manifest.items():
      return self._source
    try:
      self._source = self._open_source(self._workdir, step)
    except Exception:  # a deleted file can show as anything
      if step in sealed.numbers(self._checkpoints):
        raise
      return None
    leaves = jax.tree.leaves(self._source.params)
    if not all(np.isfinite(leaf).all() for leaf in leaves):
      raise vectors.NotFinite(
        f"{self._checkpoints / str(step)}: params that are not finite: no"
        " index is made of them"
      )
    return self._source

  def _build(self, due: int | None, have: int) -> bool:
    """Takes part in the build there is, or begins one of the checkpoint due.

    Returns:
      Whether this worker published a version.
    """

    def choose(held, alone):
      if self._have() != have:
        return None  # one came before the lock: look again
      if held and held["params_step"] > have and self._has(held):
        return self._open(held["params_step"])
      return self._open(due) if alone and due is not None else None

    chunk_blocks = self._options.chunk_blocks
    with shared_build.joined(
      self._workdir, self._options.name, chunk_blocks, choose
    ) as build:
      if build is None:
        return False
      lock, stage, source = build
      step = source.manifest["params_step"]
      shared_build.embed_unclaimed(
        source,
        stage,
        on_chunk=lambda done, total: self._beat(step, done, total),
        on_blocks=self._beat_at_times(),
        wait=lambda: self._sleep(self._options.poll_seconds),
      )
      if not lock.alone() or self._have() >= step:
        return False
      files.fail_point("worker_publish")
      path = build_index.publish(
        source, stage, source.manifest, None, source.blocks
      )
    self._heart.beat(state="published", version=int(path.name))
    return True

  def _has(self, identity: dict[str, Any]) -> bool:
    step = identity["params_step"]
    steps = sealed.numbers(self._checkpoints)
    return step not in self._bad and step in steps

  def _beat_at_times(self) -> Callable[[int, int], None]:
    """Shows within a chunk that this worker lives."""
    beaten = time.monotonic()

    def on_blocks(count, flops):
      nonlocal beaten
      del count, flops
      if time.monotonic() - beaten > _BEAT_SECONDS:
        beaten = time.monotonic()
        self._heart.beat()

    return on_blocks

  def _beat(self, step, done, total) -> None:
    self._heart.beat(
      state="embedding",
      params_step=step,
      done=done,
      total=total,
      message=f"embedding step {step}, {done} of {total} chunks",
    )
    self._check_parent()

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
