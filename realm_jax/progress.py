"""How far a job is: a bar on a terminal, else a line at times, or nothing.

`--noprogress` of every command sets $REALM_PROGRESS to 0, which the processes
that it starts see too.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import tqdm

VARIABLE = "REALM_PROGRESS"
OFF = "0"
_SECONDS_BETWEEN_LINES = 15.0
_T = TypeVar("_T")


class Progress:
  """A job's progress, on stderr; a context manager.

  Only process 0 shows it. The first line comes after 15 s, so a short job has
  none.
  """

  always_ends = False  # whether a short job has its last line all the same

  def __init__(self, total: int | None, unit: str, done: int = 0):
    """Begins with `done` of `total` units done; None where nobody knows."""
    self._first, self._done, self._total, self._unit = done, done, total, unit
    self._began = self._said = time.monotonic()
    self._shown = os.environ.get(VARIABLE) != OFF and in_first_process()
    self._bar = None
    if self._shown and sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        initial=done, total=total, unit=unit, dynamic_ncols=True, leave=None
      )

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_) -> None:
    if self._bar is not None:
      self._bar.close()

  def update(self, done: int, figures: Mapping[str, str] | None = None) -> None:
    """`done` units are done, those it began with among them."""
    if done <= self._done:
      return
    self._done = done
    if self._bar is not None:
      self._bar.set_postfix(figures, refresh=False)
      self._bar.update(done - self._bar.n)
    elif self._shown and self._is_time():
      say(self._line(figures or {}))

  def _is_time(self) -> bool:
    now = time.monotonic()
    long_ago = now - self._said >= _SECONDS_BETWEEN_LINES
    # the last one belongs to the lines that were there
    last = self._done == self._total
    ends = self.always_ends or self._said > self._began
    if not (long_ago or (last and ends)):
      return False
    self._said = now
    return True

  def _line(self, figures: Mapping[str, str]) -> str:
    pace = (self._done - self._first) / (time.monotonic() - self._began)
    of = f"/{self._total}" if self._total else ""
    words = [f"{self._unit} {self._done}{of}"]
    words += [f"{name} {value}" for name, value in figures.items()]
    words.append(f"{pace:.3g}/s")
    if self._total:
      left = tqdm.tqdm.format_interval((self._total - self._done) / pace)
      words.append(f"eta {left}")
    return "  ".join(words)


def track(
  items: Iterable[_T], unit: str, total: int | None = None
) -> Iterator[_T]:
  """Passes the items on, and shows how many there were."""
  with Progress(total, unit) as progress:
    for number, item in enumerate(items, 1):
      yield item
      progress.update(number)


def say(text: str) -> None:
  """Prints a line on stderr, above the bar if there is one; process 0 only."""
  if in_first_process():
    tqdm.tqdm.write(text, file=sys.stderr)


def in_first_process() -> bool:
  """Whether this is process 0 of its job; needs no JAX to be loaded."""
  jax = sys.modules.get("jax")
  return jax is None or jax.process_index() == 0
