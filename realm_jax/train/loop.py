"""The one training loop: ICT, pre-training and fine-tuning all run through it.

Steps are dispatched without waiting for their results. At most `max_in_flight`
of them are under way: more would hang simulated CPU devices (32 is their
bound) and let a run get far past a loss that is not finite.
"""

import collections
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from realm_jax import distributed, files
from realm_jax.config import InputError
from realm_jax.retrieval.contract import TooOld
from realm_jax.train.checkpoint import Checkpoints
from realm_jax.train.metrics import MetricsWriter, Progress, note
from realm_jax.train.state import TrainState

StepFn = Callable[[TrainState, Any, Any], tuple[TrainState, Any, dict]]
Refresh = Callable[
  [int, TrainState, Any, Callable[[], bool]], tuple[Any, Mapping[str, Any]]
]
Watch = Callable[[int, Mapping[str, Any]], Mapping[str, Any]]
Evaluator = Callable[[TrainState, Any], Iterable[tuple[str, Any]]]

# A finite loss can leave params that are not; the gradients tell.
_MUST_BE_FINITE = ("loss", "grad_norm")


def train(
  *,
  step_fn: StepFn,
  state: TrainState,
  index: Any,
  batches: Iterator[Any],
  num_steps: int,
  workdir: str | os.PathLike,
  checkpoints: Checkpoints,
  writer: MetricsWriter,
  log_every: int,
  eval_every: int,
  checkpoint_every: int,
  max_in_flight: int = 8,
  refresh: Refresh = lambda step, state, index, told: (index, {}),
  watch: Watch = lambda step, figures: {},
  fit: Callable[[Any], Any] = lambda index: index,
  evaluators: Sequence[tuple[str, Evaluator]] = (),
  meta: Mapping[str, Any] | None = None,
  place_batch: Callable[[Any], Any] = jax.device_put,
) -> tuple[TrainState, Any]:
  """Trains to `num_steps`, from the newest checkpoint if there is one.

  A run that is interrupted and started again writes the same metrics, bit for
  bit, as one that is not: all that a step depends on is in the checkpoint.

  Args:
    step_fn: (state, index, batch) -> (state, index, scalars), jitted, state
      and index donated; "loss" is among the scalars.
    state: where a fresh run starts; gives shapes and places to a resumed one.
    index: pytree that travels beside the state, or None.
    batches: Grain iterator of structs with example_ids [B].
    num_steps: steps in all, those of earlier starts among them.
    workdir: the run's directory, for messages.
    checkpoints: of this run.
    writer: of this run.
    log_every: steps between two lines of metrics.
    eval_every: steps between two evaluations; 0 for one at the end only.
    checkpoint_every: steps between two checkpoints; 0 for one at the end only.
    max_in_flight: most steps that are dispatched and not awaited.
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

  Returns:
    The last state and index.

  Raises:
    InputError: the loss is not finite, the data has ended, the disk is full,
      or the index is too old.
    SystemExit: asked to stop by SIGTERM or SIGINT, after a checkpoint.
  """
  start = distributed.by_process_0(checkpoints.latest) or 0
  _check_not_past(start, num_steps, workdir)
  if start:
    tree = {"state": state, "index": index}
    tree, _ = checkpoints.restore(start, tree, batches)
    state, index = tree["state"], fit(tree["index"])
    note(f"{workdir}: going on from step {start}")
  writer.truncate_after(start)
  flight = _Flight(
    max_in_flight, log_every, num_steps, checkpoints, writer, watch
  )

  def save(step, state, index):
    flight.drain()  # nothing that came of a bad loss is saved
    if distributed.by_process_0(checkpoints.latest) != step:
      tree = {"state": state, "index": index}
      checkpoints.save(step, tree, batches, meta)

  with (
    Progress(start, num_steps) as progress,
    _StopSignals() as stop_asked,
    jax.thread_guard(jax.process_count() > 1),
  ):
    for step in range(start + 1, num_steps + 1):
      files.fail_point(f"train_step_{step}")
      try:
        index, events = refresh(step - 1, state, index, stop_asked)
      except TooOld:
        save(step - 1, state, index)
        checkpoints.wait()
        if stop_asked.told:
          stop_asked.exit(step - 1, checkpoints)
        raise
      batch, placed, input_seconds = _next_batch(batches, step, place_batch)
      with jax.transfer_guard_host_to_device("disallow"):
        state, index, scalars = step_fn(state, index, placed)
      flight.add(step, batch.example_ids, scalars, events, input_seconds)

      last, stopping = step == num_steps, stop_asked()
      if last or _due(step, eval_every):
        flight.drain()
        _evaluate(step, evaluators, state, index, writer)
      if last or stopping or _due(step, checkpoint_every):
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
  input_seconds: float


class _Flight:
  """The steps under way, oldest first; each is looked at when it lands."""

  def __init__(self, limit, log_every, num_steps, checkpoints, writer, watch):
    self._limit, self._log_every, self._last = limit, log_every, num_steps
    self._checkpoints, self._writer = checkpoints, writer
    self._watch = watch
    self._steps: collections.deque[_Step] = collections.deque()
    self.landed, self.figures = 0, {}
    self._clock = None  # (step, seconds) from which the pace is counted
    self._input_seconds = []

  def add(self, *step) -> None:
    """Takes a step in; waits for the oldest where there are too many."""
    self._steps.append(_Step(*step))
    while len(self._steps) > self._limit:
      self._land()

  def drain(self) -> None:
    """Waits for all of them. What comes next is not part of the pace."""
    while self._steps:
      self._land()
    self._clock = None

  def _land(self) -> None:
    step = self._steps.popleft()
    logged = bool(step.events) or _due(step.number, self._log_every)
    logged = logged or step.number == self._last
    wanted = step.scalars if logged else _critical(step.scalars)
    values = jax.device_get(wanted)
    _check_finite(step, values, self._checkpoints)
    self._input_seconds.append(step.input_seconds)
    if logged:
      seen = self._watch(step.number, values)
      timings = self._timings(step.number)
      self._writer.write(
        step.number, {**values, **step.events, **seen, **timings}
      )
    if self._clock is None:
      self._clock = step.number, time.monotonic()
    self.landed = step.number
    self.figures.update(values)

  def _timings(self, number: int) -> dict[str, float]:
    """Means since the last line; no pace from a step that waited alone."""
    now, seconds = time.monotonic(), self._input_seconds
    timings = {"input_seconds": sum(seconds) / len(seconds)}
    if self._clock is not None and number > self._clock[0]:
      since, began = self._clock
      timings["steps_per_second"] = (number - since) / (now - began)
    self._clock, self._input_seconds = (number, now), []
    return timings


class _StopSignals:
  """SIGTERM and SIGINT as a question asked after each step, and in each wait.

  The first signal lets the step end; a second one acts at once. Of several
  processes JAX's own preemption notifier takes SIGTERM, and has all of them
  told at the same question: all must ask equally often.

  Attributes:
    told: whether the answer was yes.
  """

  def __enter__(self) -> "_StopSignals":
    self._signal, self._before = None, {}
    self.told, self._asked = False, 0
    main = threading.current_thread() is threading.main_thread()
    if main and jax.process_count() == 1:
      for number in (signal.SIGTERM, signal.SIGINT):
        self._before[number] = signal.signal(number, self._take)
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def __call__(self) -> bool:
    """Whether to stop."""
    self._asked += 1  # from 1: before the first JAX's notifier agrees on 1
    if jax.process_count() > 1:
      told = multihost_utils.reached_preemption_sync_point(self._asked)
    else:
      told = self._signal is not None
    self.told |= told
    return self.told

  def exit(self, step: int, checkpoints: Checkpoints) -> NoReturn:
    """Ends the process: well for a scheduler, as a signal does for a person."""
    checkpoints.wait()
    number = self._signal or signal.SIGTERM
    name = signal.Signals(number).name
    note(f"{name}: stopped after step {step}; the same command goes on there")
    raise SystemExit(0 if number == signal.SIGTERM else 128 + number)

  def _take(self, number, frame) -> None:
    del frame
    self._signal = number
    self.__exit__()


def _next_batch(
  batches: Iterator[Any], step: int, place_batch: Callable[[Any], Any]
) -> tuple[Any, Any, float]:
  """The next batch on the host and on the mesh, and the seconds it took."""
  began = time.monotonic()
  batch = next(batches, None)
  if batch is None:
    raise InputError(
      f"the training data ended before step {step}: give more of it, or train"
      f" for {step - 1} steps"
    )
  placed = place_batch(batch)
  return batch, placed, time.monotonic() - began


def _evaluate(step, evaluators, state, index, writer) -> None:
  for name, evaluate in evaluators:
    figures = {f"{name}/{k}": v for k, v in evaluate(state, index)}
    writer.write(step, figures)
    shown = "  ".join(f"{k} {float(v):.4g}" for k, v in figures.items())
    note(f"step {step}  {shown}")


def _check_not_past(start: int, num_steps: int, workdir) -> None:
  if start > num_steps:
    raise InputError(
      f"{workdir} is at step {start} already, past train.num_steps={num_steps}:"
      " give more steps, or another workdir"
    )


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
