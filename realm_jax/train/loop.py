"""The one training loop: ICT, pre-training and fine-tuning all run through it.

Steps are dispatched without waiting for their results. At most `max_in_flight`
of them are under way: more would hang simulated CPU devices (32 is their
bound) and let a run get far past a loss that is not finite.
"""

import collections
import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from realm_jax import distributed, files
from realm_jax.config import InputError
from realm_jax.retrieval.contract import TooOld
from realm_jax.train.checkpoint import Checkpoints
from realm_jax.train.metrics import MetricsWriter, Progress, note
from realm_jax.train.profile import Profile
from realm_jax.train.state import TrainState
from realm_jax.train.stop import StopSignals
from realm_jax.train.telemetry import Meter, Spent

StepFn = Callable[[TrainState, Any, Any], tuple[TrainState, Any, dict]]
Refresh = Callable[
  [int, TrainState, Any, Callable[[], bool]], tuple[Any, Mapping[str, Any]]
]
Watch = Callable[[int, Mapping[str, Any]], Mapping[str, Any]]
Evaluator = Callable[[TrainState, Any], Iterable[tuple[str, Any]]]

# A finite loss can leave params that are not; the gradients tell.
_MUST_BE_FINITE = ("loss", "grad_norm")


class Schedule(NamedTuple):
  """What a run does at which steps.

  Attributes:
    num_steps: in all, those of earlier starts among them.
    log_every: steps between two lines of metrics.
    eval_every: steps between two evaluations; 0 for one at the end only.
    checkpoint_every: steps between two checkpoints; 0 for one at the end only.
    max_in_flight: most steps that are dispatched and not awaited.
  """

  num_steps: int
  log_every: int
  eval_every: int
  checkpoint_every: int
  max_in_flight: int = 8


def train(
  *,
  step_fn: StepFn,
  state: TrainState,
  index: Any,
  batches: Iterator[Any],
  schedule: Schedule,
  workdir: str | os.PathLike,
  checkpoints: Checkpoints,
  writer: MetricsWriter,
  refresh: Refresh = lambda step, state, index, told: (index, {}),
  watch: Watch = lambda step, figures: {},
  fit: Callable[[Any], Any] = lambda index: index,
  evaluators: Sequence[tuple[str, Evaluator]] = (),
  meta: Mapping[str, Any] | None = None,
  place_batch: Callable[[Any], Any] = jax.device_put,
  meter: Meter | None = None,
  profile: range = range(0),
) -> tuple[TrainState, Any]:
  """Trains to the last step, from the newest checkpoint if there is one.

  A run that is interrupted and started again writes the same metrics, bit for
  bit, as one that is not: all that a step depends on is in the checkpoint.

  Args:
    step_fn: (state, index, batch) -> (state, index, scalars), jitted, state
      and index donated; "loss" is among the scalars.
    state: where a fresh run starts; gives shapes and places to a resumed one.
    index: pytree that travels beside the state, or None.
    batches: Grain iterator of structs with example_ids [B].
    schedule: what happens when.
    workdir: the run's directory.
    checkpoints: of this run.
    writer: of this run.
    refresh: called before each step with the number of steps done, and with
      what tells whether to stop, should it wait (to be asked in every process
      alike); returns the index to go on with and what happened. {} is nothing;
      anything else is written with the step's metrics, whatever log_every
      says. Where it raises TooOld, a checkpoint is saved first.
    fit: makes a restored index one of these devices.
    watch: given a step and its figures when they are written; returns more.
    evaluators: (name, function) pairs; their figures are "name/metric".
    meta: kept in each checkpoint.
    place_batch: host rows -> arrays on the mesh.
    meter: of the pace; None for one that counts no FLOPs.
    profile: steps to trace.

  Returns:
    The last state and index.

  Raises:
    InputError: the loss is not finite, the data has ended, the disk is full,
      or the index is too old.
    SystemExit: asked to stop by SIGTERM or SIGINT, after a checkpoint.
  """
  start, num_steps = _start(checkpoints, schedule, workdir), schedule.num_steps
  if start:
    state, index = _restore(start, state, index, batches, checkpoints, fit)
  writer.truncate_after(start)
  flight = _Flight(schedule, checkpoints, writer, watch, meter or Meter())
  spent = Spent()

  def save(step, state, index):
    flight.drain()  # nothing that came of a bad loss is saved
    if distributed.by_process_0(checkpoints.latest) != step:
      tree = {"state": state, "index": index}
      with spent.on("checkpoint"):
        checkpoints.save(step, tree, batches, meta)

  with (
    contextlib.closing(writer),  # or TensorBoard's last steps are lost
    Progress(start, num_steps) as progress,
    Profile(workdir, profile) as trace,
    StopSignals() as stop_asked,
    jax.thread_guard(jax.process_count() > 1),
  ):
    for step in range(start + 1, num_steps + 1):
      files.fail_point(f"train_step_{step}")
      trace.before(step, flight.drain)
      try:
        index, events = refresh(step - 1, state, index, stop_asked)
      except TooOld:
        save(step - 1, state, index)
        checkpoints.wait()
        if stop_asked.told:
          stop_asked.exit(step - 1, checkpoints)
        raise
      with spent.on("input"):
        batch, placed = _next_batch(batches, step, place_batch)
      with _undisturbed(step):
        state, index, scalars = step_fn(state, index, placed)
      flight.add(step, batch.example_ids, scalars, events, spent.take())

      trace.after(step, flight.drain)
      last, stopping = step == num_steps, stop_asked()
      if last or _due(step, schedule.eval_every):
        flight.drain()
        _evaluate(step, evaluators, state, index, writer)
      if last or stopping or _due(step, schedule.checkpoint_every):
        save(step, state, index)
      progress.update(flight.landed, flight.figures)
      if stopping:
        stop_asked.exit(step, checkpoints)
  checkpoints.wait()
  return state, index


class _Step(NamedTuple):
  """A step that was dispatched; its scalars are still on the device."""

  number: int
  example_ids: np.ndarray
  scalars: Mapping[str, jax.Array]
  events: Mapping[str, Any]
  spent: collections.Counter


class _Flight:
  """The steps under way, oldest first; each is looked at when it lands."""

  def __init__(self, schedule, checkpoints, writer, watch, meter):
    self._schedule, self._meter = schedule, meter
    self._checkpoints, self._writer = checkpoints, writer
    self._watch = watch
    self._steps: collections.deque[_Step] = collections.deque()
    self.landed, self.figures = 0, {}

  def add(self, *step) -> None:
    """Takes a step in; waits for the oldest where there are too many."""
    step = _Step(*step)
    if step.events:
      self._pause()
      step.spent["swap"] += step.events.get("refresh_seconds", 0)
    self._steps.append(step)
    while len(self._steps) > self._schedule.max_in_flight:
      self._land()

  def drain(self) -> None:
    """Waits for all of them. What comes next is not part of the pace."""
    while self._steps:
      self._land()
    self._pause()

  def _pause(self) -> None:
    self._meter.pause(self._steps[-1].number if self._steps else self.landed)

  def _land(self) -> None:
    step = self._steps.popleft()
    logged = bool(step.events) or _due(step.number, self._schedule.log_every)
    logged = logged or step.number == self._schedule.num_steps
    wanted = step.scalars if logged else _critical(step.scalars)
    values = jax.device_get(wanted)
    _check_finite(step, values, self._checkpoints)
    self._meter.landed(step.number, step.spent)
    self.landed = step.number
    self.figures.update(values)
    if logged:
      seen = self._watch(step.number, values)
      pace = self._meter.take(values)
      self._writer.write(step.number, {**values, **step.events, **seen, **pace})
      self.figures.update(pace)


def _restore(start, state, index, batches, checkpoints, fit):
  tree = {"state": state, "index": index}
  tree, _ = checkpoints.restore(start, tree, batches)
  return tree["state"], fit(tree["index"])


def _next_batch(
  batches: Iterator[Any], step: int, place_batch: Callable[[Any], Any]
) -> tuple[Any, Any]:
  """The next batch on the host and on the mesh."""
  batch = next(batches, None)
  if batch is None:
    raise InputError(
      f"the training data ended before step {step}: give more of it, or train"
      f" for {step - 1} steps"
    )
  return batch, place_batch(batch)


@contextlib.contextmanager
def _undisturbed(step: int) -> Iterator[None]:
  """Refuses hidden copies to the device; a profile shows the step."""
  with (
    jax.transfer_guard_host_to_device("disallow"),
    jax.profiler.StepTraceAnnotation("train", step_num=step),
  ):
    yield


def _evaluate(step, evaluators, state, index, writer) -> None:
  for name, evaluate in evaluators:
    figures = {f"{name}/{k}": v for k, v in evaluate(state, index)}
    writer.write(step, figures)
    shown = "  ".join(f"{k} {float(v):.4g}" for k, v in figures.items())
    note(f"step {step}  {shown}")


def _start(checkpoints: Checkpoints, schedule: Schedule, workdir) -> int:
  """The steps that are done."""
  start = distributed.by_process_0(checkpoints.latest) or 0
  if start > schedule.num_steps:
    raise InputError(
      f"{workdir} is at step {start} already, past"
      f" train.num_steps={schedule.num_steps}: give more steps, or another"
      " workdir"
    )
  if start:
    note(f"{workdir}: going on from step {start}")
  return start


def _check_finite(step: _Step, values, checkpoints: Checkpoints) -> None:
  for name in _MUST_BE_FINITE:
    value = float(values.get(name, 0))
    if not math.isfinite(value):
      ids = ", ".join(map(str, np.asarray(step.example_ids)))
      last_good = checkpoints.latest()
      raise InputError(
        f"{name} is {value} at step {step.number}, examples {ids}; last good"
        f" checkpoint: {last_good or 'none'} in {checkpoints.path}: lower the"
        " learning rate, or look at these examples"
      )


def _critical(scalars: Mapping[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in scalars.items() if k in _MUST_BE_FINITE}


def _due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0
