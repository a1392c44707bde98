"""Who does the work of preparation: this process, a pool of them, or Beam.

A step cuts parts into items, in order and quickly, and makes of each item a
shard: a directory that is published whole, named by its number. What a shard
holds depends on its item alone, so it does not matter who made it, when, or
beside what; shards that are there are not made again.
"""

import contextlib
import dataclasses
import io
import itertools
import multiprocessing
import os
import pathlib
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from realm_jax import files, progress
from realm_jax.config import InputError

KINDS = ("local", "beam")
_ERROR = "error.json"  # in a directory of shards, of the first that failed
_AHEAD = 2  # items a process that are read before they are needed


class Step(Protocol):
  """One of preparation's steps; it is sent to other processes."""

  name: str

  def split(self, part: Any) -> Iterator[Any]:
    """The items of a part."""

  def make(self, item: Any, path: pathlib.Path) -> None:
    """Publishes the shard of an item."""


@dataclasses.dataclass(frozen=True)
class Runner:
  """How steps are run.

  Attributes:
    kind: one of KINDS.
    workers: processes of "local"; 0: one a CPU.
    beam_args: what Beam's own options are, as on a command line.

  Raises:
    InputError: another kind, Beam is not installed, or no such option.
  """

  kind: str = "local"
  workers: int = 1
  beam_args: str = ""

  def __post_init__(self):
    if self.kind not in KINDS:
      raise InputError(
        f'config data.runner="{self.kind}": wanted one of {", ".join(KINDS)}'
      )
    if self.workers < 0:
      raise InputError(
        f"config data.workers={self.workers}: wanted 0 (one a CPU) or more"
      )
    if self.kind == "beam":
      _beam_options(self.beam_args)

  def run(
    self, step: Step, parts: Sequence[Any], directory: pathlib.Path
  ) -> list[pathlib.Path]:
    """Makes all shards of the parts in a directory; returns them in order.

    Raises:
      InputError: what is wrong with the input, or a process died.
    """
    jobs = [_Job(step, i, part, directory) for i, part in enumerate(parts)]
    todo = [job for job in jobs if not job.is_done()]
    if todo and self.kind == "beam":
      _run_beam(todo, directory, self.beam_args)
    elif todo:
      _run_local(todo, self.workers or os.cpu_count() or 1)
    return [path for job in jobs for path in job.shards()]


@dataclasses.dataclass(frozen=True)
class _Job:
  """A part to be made; how many shards it has is noted once it is read."""

  step: Step
  number: int
  part: Any
  directory: pathlib.Path

  def tasks(self) -> Iterator["_Task"]:
    """What is still to be made."""
    count = 0
    for item in self.step.split(self.part):
      path = self._shard(count)
      count += 1
      if not path.exists():
        yield _Task(self.step, item, path)
    files.write_json(self._note(), count)

  def shards(self) -> list[pathlib.Path]:
    return [self._shard(i) for i in range(files.read_json(self._note()))]

  def is_done(self) -> bool:
    return self._note().exists() and all(p.exists() for p in self.shards())

  def _note(self) -> pathlib.Path:
    return self.directory / f"{self.number:05d}.json"

  def _shard(self, count: int) -> pathlib.Path:
    return self.directory / f"{self.number:05d}-{count:06d}"


class _Task:
  """A shard to be made."""

  def __init__(self, step: Step, item: Any, path: pathlib.Path):
    self.step, self.item, self.path = step, item, path

  def run(self) -> None:
    self.step.make(self.item, self.path)
    files.fail_point("shard")


def _run_local(jobs: list[_Job], workers: int) -> None:
  tasks = itertools.chain.from_iterable(job.tasks() for job in jobs)
  unit = f"shard of {jobs[0].step.name}"
  for _ in progress.track(_run_tasks(tasks, workers), unit):
    pass


def _run_tasks(tasks: Iterator[_Task], workers: int) -> Iterator[None]:
  """Comes back after each task that is done."""
  first = list(itertools.islice(tasks, min(workers, 2)))
  tasks = itertools.chain(first, tasks)
  if len(first) < 2:  # one process, or nothing to share
    yield from (task.run() for task in tasks)
  else:
    yield from _run_pool(tasks, workers)


def _run_pool(tasks: Iterator[_Task], workers: int) -> Iterator[None]:
  """Reads no further ahead than the processes need."""
  pool = futures.ProcessPoolExecutor(
    workers,
    mp_context=multiprocessing.get_context("spawn"),
    initializer=_start_worker,
  )
  running: set[futures.Future] = set()
  try:
    for task in tasks:
      running.add(pool.submit(task.run))
      if len(running) >= _AHEAD * workers:
        done, running = futures.wait(
          running, return_when=futures.FIRST_COMPLETED
        )
        yield from (future.result() for future in done)
    yield from (future.result() for future in futures.as_completed(running))
  except BrokenProcessPool as e:
    raise InputError(
      "a process of the pool died, perhaps for lack of memory: run the same"
      f" command again, with fewer than data.workers={workers}"
    ) from e
  finally:
    pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
  os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the pool is parallel enough
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  multiprocessing.parent_process().join()
  os._exit(1)


def _beam_options(args: str):
  try:
    from apache_beam.options.pipeline_options import PipelineOptions
  except ImportError as e:
    raise InputError(
      'config data.runner="beam": Apache Beam is not installed; pip install'
      ' "realm-jax[beam]", or give --config.data.runner=local'
    ) from e
  said = io.StringIO()
  try:
    with contextlib.redirect_stderr(said):
      options = PipelineOptions(shlex.split(args))
      options.get_all_options()  # parses them
  except (ValueError, SystemExit) as e:  # argparse says it and exits
    reason = (said.getvalue().strip() or str(e)).splitlines()[-1]
    raise InputError(
      f"config data.beam_args={args!r}: not options of Beam ({reason})"
    ) from e
  return options


def _run_beam(jobs: list[_Job], directory: pathlib.Path, args: str) -> None:
  """The machines of the runner need the directory and the sources."""
  import apache_beam as beam

  error = directory / _ERROR
  error.unlink(missing_ok=True)
  try:
    with beam.Pipeline(options=_beam_options(args)) as pipeline:
      (
        pipeline
        | beam.Create(jobs)
        | "a part to each" >> beam.Reshuffle()
        | "read" >> beam.FlatMap(_tasks_in_beam)
        | "an item to each" >> beam.Reshuffle()
        | "make" >> beam.Map(_run_in_beam)
      )
  except Exception as e:  # Beam wraps what a worker raises, its text too
    if error.exists():
      raise InputError(files.read_json(error)) from e
    raise


def _tasks_in_beam(job: _Job) -> Iterator[_Task]:
  with _noting_errors(job.directory):
    yield from job.tasks()


def _run_in_beam(task: _Task) -> None:
  with _noting_errors(task.path.parent):
    task.run()


@contextlib.contextmanager
def _noting_errors(directory: pathlib.Path) -> Iterator[None]:
  """So that the user sees the line, and not where Beam was at the time."""
  try:
    yield
  except InputError as e:
    files.write_json(directory / _ERROR, str(e))
    raise
