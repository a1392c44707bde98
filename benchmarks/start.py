"""How a benchmark that has flags and no config starts, and what its rounds are."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags

from experiments import command
from realm_jax.config import InputError

_SHORT = 1.0  # seconds


def run(main: Callable[[flags.FlagValues], Any]) -> None:
  """Runs main(flags) as a command: its allocator, its cache, its clean end."""
  command.use_huge_pages(even_with_jax=True)
  with command.clean_exit():
    command.use_compilation_cache()
    app.define_help_flags()
    try:
      words = flags.FLAGS(sys.argv)[1:]
    except flags.Error as e:
      raise InputError(f"{e}; --help lists the flags") from e
    if words:
      raise InputError(f"{words[0]!r}: only flags are taken, as --name=value")
    main(flags.FLAGS)


def use_threads(count: int) -> None:
  """Holds this process, and those it starts, to so many processors (Linux).

  Raises:
    InputError: there are not so many.
  """
  there = sorted(os.sched_getaffinity(0))
  if not 0 < count <= len(there):
    raise InputError(f"--threads={count}: wanted 1 to {len(there)}")
  os.sched_setaffinity(0, there[:count])


def interleaved(
  programs: dict[str, Callable[[int], Any]], rounds: int
) -> dict[str, np.ndarray]:
  """Seconds [rounds] of each program.

  In a round each runs once, every round begins with another one, and the first
  of all warms up and is left out. So a busy machine slows them all alike. What
  is short runs twice in a row and the second counts: after a program of one
  thread, or a pause, a processor is slow for a while.

  Args:
    programs: takes the number of the round; a float that one returns is its
      seconds by another clock.
    rounds: that count.
  """
  names, seconds = list(programs), {name: [] for name in programs}
  for i in range(rounds + 1):
    turn = i % len(names)
    for name in names[turn:] + names[:turn]:
      took = _seconds(programs[name], i)
      if took < _SHORT:
        took = _seconds(programs[name], i)
      seconds[name].append(took)
  return {name: np.array(s[1:]) for name, s in seconds.items()}


def _seconds(program, number):
  began = time.perf_counter()
  told = program(number)
  took = time.perf_counter() - began
  return told if isinstance(told, float) else took


def row(name: str, *cells: str, width: int = 24) -> str:
  """A line of a table."""
  return f"{name:{width}}" + "".join(f"{cell:>10}" for cell in cells)
