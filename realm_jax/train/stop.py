"""How a run is told to stop: SIGTERM, as schedulers send it, and Ctrl-C."""

import signal
import threading
from typing import NoReturn

import jax
from jax.experimental import multihost_utils

from realm_jax.train.checkpoint import Checkpoints
from realm_jax.train.metrics import note


class StopSignals:
  """SIGTERM and SIGINT as a question asked after each step, and in each wait.

  The first signal lets the step end; a second one acts at once. Of several
  processes JAX's own preemption notifier takes SIGTERM, and has all of them
  told at the same question: all must ask equally often.

  Attributes:
    told: whether the answer was yes.
  """

  def __enter__(self) -> "StopSignals":
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
