"""How fast a run's steps are and where its seconds go: docs/telemetry.md.

All by the host's clock, at moments in which the loop waits for a step anyway:
to measure costs no wait of its own.
"""

import collections
import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from realm_jax.plan import device

_WINDOW = 100  # steps that the percentiles are of, so that p99 is one of them
_PERCENTILES = (50, 90, 99)


class Spent:
  """Seconds of the host, by what they went to, since they were last taken."""

  def __init__(self):
    self._seconds = collections.Counter()

  @contextlib.contextmanager
  def on(self, what: str) -> Iterator[None]:
    """Counts the seconds within."""
    began = time.monotonic()
    yield
    self._seconds[what] += time.monotonic() - began

  def take(self) -> collections.Counter:
    """What was spent; begins anew."""
    taken, self._seconds = self._seconds, collections.Counter()
    return taken


class Meter:
  """The figures of a run's pace.

  A step's seconds are those between its end and that of the step before. A
  pause (a swap, a checkpoint, an evaluation) is no part of them.
  """

  def __init__(
    self,
    count_flops: Callable[[], tuple[int, int]] | None = None,
    num_devices: int = 1,
  ):
    """Begins.

    Args:
      count_flops: called once, after the first steps: FLOPs of a step on all
        devices, and those of them that are the search's.
      num_devices: of the mesh.
    """
    self._count_flops, self._num_devices = count_flops, num_devices
    self._last = None  # when the last step ended, if nothing came between
    self._untimed = 0  # steps up to this one may have ended in a pause
    self._recent = collections.deque(maxlen=_WINDOW)
    self._paces: list[float] = []  # seconds of the steps since the last line
    self._spent: list[collections.Counter] = []

  def landed(self, step: int, spent: collections.Counter) -> None:
    """A step has ended; the host had spent so much when it was dispatched."""
    self._spent.append(spent)
    if step <= self._untimed:
      return
    now = time.monotonic()
    if self._last is not None:
      self._recent.append(now - self._last)
      self._paces.append(now - self._last)
    self._last = now

  def pause(self, step: int) -> None:
    """What comes now is no step's time; `step` is the last one dispatched."""
    self._last, self._untimed = None, step

  def take(self, values: Mapping[str, Any]) -> dict[str, float]:
    """The figures since they were last taken; of a step that has `values`."""
    spent, self._spent = self._spent, []
    paces, self._paces = self._paces, []
    total = sum(spent, collections.Counter())
    figures = {f"{k}_seconds": v / len(spent) for k, v in total.items()}
    if not sum(paces):  # no pace of a step that waited alone
      return figures
    pace = len(paces) / sum(paces)
    figures["steps_per_second"] = pace
    percentiles = np.percentile(self._recent, _PERCENTILES)
    for percent, seconds in zip(_PERCENTILES, percentiles, strict=True):
      figures[f"step_seconds_p{percent}"] = float(seconds)
    if "tokens" in values:
      figures["tokens_per_second"] = float(values["tokens"]) * pace
    return figures | self._of_flops(pace)

  def _of_flops(self, pace: float) -> dict[str, float]:
    if self._count_flops is None:
      return {}
    total, search = self._flops
    return {
      **rates(total * pace, self._num_devices),
      "search_flops_share": search / max(total, 1),
    }

  @functools.cached_property
  def _flops(self) -> tuple[int, int]:
    return self._count_flops()


def rates(flops_per_second: float, num_devices: int) -> dict[str, float]:
  """model_flops_per_second, and its share of the peak, where one is known."""
  figures = {"model_flops_per_second": flops_per_second}
  if peak := device.peak_flops():
    figures["mfu"] = flops_per_second / (num_devices * peak)
  return figures


def in_words(flops_per_second: float, num_devices: int) -> dict[str, str]:
  """{"GFLOP/s": "45.1", "MFU": "41.0%"}, the latter where a peak is known."""
  figures = rates(flops_per_second, num_devices)
  words = {"GFLOP/s": f"{flops_per_second / 1e9:.3g}"}
  if "mfu" in figures:
    words["MFU"] = f"{figures['mfu']:.1%}"
  return words
