"""Traces of a few steps for xprof: what `--profile=FIRST:LAST` asks for."""

import os
import pathlib
import re
from collections.abc import Callable

import jax

from realm_jax.config import InputError
from realm_jax.train.metrics import note


def parse(text: str, num_steps: int) -> range:
  """The steps FIRST to LAST of `FIRST:LAST`; none of "".

  Raises:
    InputError: not of that form, or no steps of a run of so many.
  """
  if not text:
    return range(0)
  found = re.fullmatch(r"(\d+):(\d+)", text)
  first, last = map(int, found.groups()) if found else (0, 0)
  if not 1 <= first <= last <= num_steps:
    raise InputError(
      f"--profile={text}: wanted FIRST:LAST, steps from 1 to"
      f" train.num_steps={num_steps}, such as {max(num_steps - 1, 1)}:"
      f"{num_steps}"
    )
  return range(first, last + 1)


class Profile:
  """Writes what process 0 does in some steps to WORKDIR/profile.

  A context manager, so that a run that ends among them leaves a trace as well.
  """

  def __init__(self, workdir: str | os.PathLike, steps: range = range(0)):
    self._path = pathlib.Path(workdir) / "profile"
    self._steps = steps if jax.process_index() == 0 else range(0)
    self._on = False

  def __enter__(self) -> "Profile":
    return self

  def __exit__(self, *_) -> None:
    if self._on:
      self._on = False
      jax.profiler.stop_trace()
      note(
        f"{self._path}: a trace; look at it with xprof --logdir={self._path}"
      )

  def before(self, step: int, wait: Callable[[], None]) -> None:
    """Begins, once `wait` has ended the steps before."""
    if step in self._steps and not self._on:
      wait()
      self._path.mkdir(parents=True, exist_ok=True)
      jax.profiler.start_trace(self._path)
      self._on = True

  def after(self, step: int, wait: Callable[[], None]) -> None:
    """Ends, once `wait` has ended the last of the steps."""
    if self._on and step == self._steps[-1]:
      wait()
      self.__exit__()
