"""Refresh workers that a training run starts on its own machine.

They are processes like any other worker, and end with the run. One that dies is
started again, soon the first time and later and later if it goes on dying.
Training never waits for them here; what it does without an index that is fresh
enough, its contract says (configs/common.py).
"""

import contextlib
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import jax

from realm_jax.config import InputError
from realm_jax.train.metrics import note

_LOOK_SECONDS = 0.2
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds before another start
_HEALTHY_SECONDS = 60.0  # so long alive, and the next pause is the first again
_STOP_SECONDS = 10.0  # to end after SIGTERM


@contextlib.contextmanager
def workers(
  workdir: str | os.PathLike, count: int, end_seconds: float
) -> Iterator[None]:
  """Keeps `count` workers going while the body runs.

  Args:
    workdir: the run.
    count: how many.
    end_seconds: how long they have for the last version when the body has
      ended well; if it has not, they are stopped.

  Raises:
    InputError: the devices are none that processes can share.
  """
  if jax.default_backend() != "cpu":
    raise InputError(
      f"config refresh.supervise={count}: these workers would take the"
      f" trainer's {jax.default_backend()}s: start experiments.refresh_worker"
      " on devices of its own"
    )
  team = [_Worker(workdir, f"local-{i}") for i in range(count)]
  over = threading.Event()
  keeper = threading.Thread(target=_keep, args=(team, over), daemon=True)
  keeper.start()
  try:
    yield
    _wait_for(team, end_seconds)
  finally:
    over.set()
    keeper.join()
    _stop(team)


def command(workdir: str | os.PathLike, name: str) -> list[str]:
  """What starts a worker that ends with this process."""
  return [
    sys.executable, "-m", "experiments.refresh_worker",
    f"--workdir={pathlib.Path(workdir).absolute()}", f"--id={name}",
    f"--parent={os.getpid()}",
  ]  # fmt: skip


class _Worker:
  """One worker's process, and when to start it again."""

  def __init__(self, workdir, name):
    self._command = command(workdir, name)
    self.name, self._pause = name, _FIRST_PAUSE
    self._start()

  def _start(self) -> None:
    self.process, self._due = subprocess.Popen(self._command), None
    self._began = time.monotonic()

  def look(self) -> None:
    """Starts it again, if it died and the time has come."""
    code, now = self.process.poll(), time.monotonic()
    if not code:  # at work, or the run has ended
      return
    if self._due is None:
      if now - self._began > _HEALTHY_SECONDS:
        self._pause = _FIRST_PAUSE
      self._due = now + self._pause
      note(
        f"worker {self.name} ended with code {code}; again in {self._pause:g} s"
      )
      self._pause = min(2 * self._pause, _LONGEST_PAUSE)
    elif now >= self._due:
      self._start()


def _keep(team: list[_Worker], over: threading.Event) -> None:
  while not over.wait(_LOOK_SECONDS):
    for worker in team:
      worker.look()


def _wait_for(team: list[_Worker], seconds: float) -> None:
  """Until the workers have made the last version and ended."""
  end = time.monotonic() + seconds
  while any(w.process.poll() != 0 for w in team):
    if time.monotonic() > end:
      note(f"the last index version is not there after {seconds:g} s")
      return
    time.sleep(_LOOK_SECONDS)


def _stop(team: list[_Worker]) -> None:
  """Ends what is still there, in the end by force."""
  alive = [w.process for w in team if w.process.poll() is None]
  for process in alive:
    process.terminate()
  for process in alive:
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(_STOP_SECONDS)
    process.kill()
    process.wait()
