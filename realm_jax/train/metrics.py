"""A run's figures: metrics.jsonl as the ground truth, TensorBoard beside it.

One line of metrics.jsonl is one step's figures (or one evaluation's), flushed
as it is written. A resumed run cuts the file at its checkpoint and writes the
same lines again, so the curve never has a step twice.
"""

import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import tensorboardX

from realm_jax import files, progress
from realm_jax.config import InputError
from realm_jax.train import telemetry

# What differs between two runs of the same thing.
TIMINGS = (
  "time",
  "steps_per_second",
  "step_seconds_p50",
  "step_seconds_p90",
  "step_seconds_p99",
  "tokens_per_second",
  "model_flops_per_second",
  "mfu",
  "search_flops_share",  # there only where there is a pace
  "input_seconds",
  "swap_seconds",
  "checkpoint_seconds",
  "refresh_seconds",
  "refresh_blocks_per_second",
  "refresh_share",
  "staleness_seconds",
  "blocked_seconds",
  "workers_alive",
  "worker_silent_seconds",
)
# What a person watches, as far as the task has it.
HEADLINE = (
  "loss",
  "accuracy",
  "retrieval_utility",
  "null_mass",
  "exact_match",
  "index_version",
  "tokens_per_second",
  "mfu",
)
note = progress.say  # a line on stderr


class MetricsWriter:
  """Appends figures to a run's metrics.jsonl and tensorboard/.

  Only process 0 writes.
  """

  def __init__(self, workdir: str | pathlib.Path):
    self._path = pathlib.Path(workdir) / "metrics.jsonl"
    self._file = None
    self._board = None
    self._first_step = 0
    self._enabled = jax.process_index() == 0

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Writes one line; a value that is not finite is written as null."""
    if not self._enabled:
      return
    self._open()
    values = {name: _number(value) for name, value in scalars.items()}
    line = {"step": step, "time": round(time.time(), 3), **values}
    self._file.write(json.dumps(line) + "\n")
    self._file.flush()
    for name, value in values.items():
      if value is not None:
        self._board.add_scalar(name, value, step)

  def truncate_after(self, step: int) -> None:
    """Drops what was written after `step`, and a torn last line."""
    self.close()
    self._first_step = step + 1
    if not self._enabled or not self._path.exists():
      return
    kept = [line for line in _lines(self._path) if line["step"] <= step]
    with files.atomic_publish(self._path) as tmp:
      tmp.write_text("".join(json.dumps(line) + "\n" for line in kept))

  def close(self) -> None:
    """Closes the files; the next write opens them again."""
    if self._file is not None:
      self._file.close()
      self._board.close()
    self._file = self._board = None

  def _open(self) -> None:
    if self._file is not None:
      return
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._file = self._path.open("a")
    self._board = tensorboardX.SummaryWriter(
      str(self._path.parent / "tensorboard"), purge_step=self._first_step
    )


def read_metrics(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
  """Reads the lines of a run's metrics.jsonl, in the order of writing.

  A last line that a kill has torn is left out.

  Raises:
    InputError: there is no such file, or a line before the last is broken.
  """
  path = pathlib.Path(workdir) / "metrics.jsonl"
  if not path.exists():
    raise InputError(
      f"{path}: no such file; is {workdir} the workdir of a run?"
    )
  return _lines(path)


class Progress(progress.Progress):
  """Shows how a run comes on: its steps and the figures to watch."""

  always_ends = True

  def __init__(self, start: int, num_steps: int):
    super().__init__(num_steps, "step", start)

  def update(self, step: int, values: Mapping[str, Any]) -> None:
    """Shows the newest figures, those of step `step`."""
    figures = {k: _shown(values[k]) for k in HEADLINE if k in values}
    super().update(step, figures)


class BlockProgress(progress.Progress):
  """Shows how a build comes on."""

  def __init__(self, done: int, total: int, num_devices: int = 1):
    """Begins with `done` of `total` blocks, embedded by so many devices."""
    super().__init__(total, "block", done)
    self._num_devices, self._flops = num_devices, 0
    if done:
      note(f"{done} of {total} blocks are embedded already")

  def add(self, num_blocks: int, flops: int) -> None:
    """So many blocks more are done; it took so many FLOPs."""
    self._flops += flops
    pace = self._flops / max(time.monotonic() - self._began, 1e-9)
    figures = telemetry.in_words(pace, self._num_devices)
    self.update(self._done + num_blocks, figures)


def _shown(value: Any) -> str:
  return f"{float(value):.4g}" if abs(value) < 1e4 else f"{float(value):.0f}"


def _number(value: Any) -> float | int | None:
  value = value.item() if hasattr(value, "item") else value
  if isinstance(value, float) and not -float("inf") < value < float("inf"):
    return None
  return value


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
  lines = path.read_text().splitlines(keepends=True)
  values = []
  for i, line in enumerate(lines):
    try:
      values.append(json.loads(line))
    except json.JSONDecodeError as e:
      if i < len(lines) - 1:
        raise InputError(
          f"{path}:{i + 1}: not JSON ({e.msg}); mend or delete this line"
        ) from e
  return values
