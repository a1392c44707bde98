"""Phases of a long command: each done once, some of them beside the others.

Starting up and compiling leave a core idle, and so do small steps: there a
process beside costs little. Two runs in their loops share the cores.
"""

import contextlib
import multiprocessing
import os
import pathlib
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from experiments import command
from realm_jax import files
from realm_jax.config import InputError

_PATIENCE = 30  # seconds for a phase beside to save and end, when all ends


class Phase(NamedTuple):
  """A piece of work with a name; what it needs can be pickled."""

  name: str
  work: Callable
  args: tuple


class Phases:
  """What WORKDIR/phases/NAME.json says is done isn't done again.

  A context manager: what still runs beside when an error leaves it is told to
  save and end, and is killed if it takes too long. SIGTERM reaches the phase
  here and those beside at once, and exits with 0.
  """

  def __init__(self, workdir: pathlib.Path):
    self._workdir = workdir
    self._folder = workdir / "phases"
    self._beside: list[tuple[multiprocessing.Process, list[Phase]]] = []
    self._told: dict[multiprocessing.Process, float] = {}  # to end, and when
    self._telling = threading.Lock()
    self._worked = False

  def __enter__(self) -> "Phases":
    self._began = time.monotonic()
    self._listening = contextlib.ExitStack()
    self._listening.enter_context(_hear_sigterm(self._tell_beside))
    return self

  def __exit__(self, error, *_) -> None:
    if error is not None:
      self._tell_beside()
      for process, told in self._told.items():
        process.join(max(told + _PATIENCE - time.monotonic(), 0))
        process.kill()
        process.join()
    self._listening.close()
    self.total()

  def _tell_beside(self) -> None:
    """Has all beside save and end; none twice, which would end it at once."""
    with self._telling:
      for process, _ in list(self._beside):
        if process not in self._told:
          self._told[process] = time.monotonic()
          process.terminate()

  def run(self, *phases: Phase) -> None:
    """Does those here that aren't done."""
    for name, work, args in self._left(phases):
      print(f"== {name}", flush=True)
      began = time.monotonic()
      work(*args)
      self._note(name, time.monotonic() - began)

  def beside(self, *phases: Phase) -> None:
    """Starts those that aren't done, one after the other, in a process beside.

    What they print goes to WORKDIR/NAME.log with the last one's name.
    """
    phases = self._left(phases)
    if not phases:
      return
    log = self._workdir / f"{phases[-1].name}.log"
    names = ", ".join(phase.name for phase in phases)
    print(f"== {names}: beside, see {log}", flush=True)
    process = multiprocessing.get_context("spawn").Process(
      target=_work_beside, args=(self._workdir, phases, log), name=str(log)
    )
    process.start()
    self._beside.append((process, phases))

  def wait(self) -> None:
    """Waits for all that runs beside.

    Raises:
      InputError: one of them failed; has its last words.
    """
    while self._beside:
      process, phases = self._beside[0]
      process.join()
      self._beside.pop(0)  # now: an interrupted wait still ends it
      if process.exitcode or self._left(phases):
        words = pathlib.Path(process.name).read_text().splitlines() or [""]
        raise InputError(f"{process.name}: {words[-1].removeprefix('error: ')}")

  def seconds(self) -> dict[str, float]:
    """What each phase took."""
    return {
      path.stem: files.read_json(path)["seconds"]
      for path in sorted(self._folder.glob("*.json"))
      if path.stem != "all"
    }

  def total(self) -> dict[str, float]:
    """What all starts took together, as WORKDIR/phases/all.json has it.

    Returns:
      "seconds_total", and "peak_memory_gb": of this process and of the largest
      beside it.
    """
    path = self._folder / "all.json"
    total = files.read_json(path) if path.exists() else {}
    if self._worked:
      now, self._worked = time.monotonic(), False
      seconds = total.get("seconds_total", 0) + now - self._began
      peak = max(total.get("peak_memory_gb", 0), _peak_memory_gb())
      total = {
        "seconds_total": round(seconds, 1),
        "peak_memory_gb": round(peak, 2),
      }
      files.write_json(path, total)
    return total

  def _left(self, phases):
    left = [p for p in phases if not (self._folder / f"{p.name}.json").exists()]
    self._worked |= bool(left)
    return left

  def _note(self, name, seconds):
    path = self._folder / f"{name}.json"
    files.write_json(path, {"seconds": round(seconds, 1)})


@contextlib.contextmanager
def _hear_sigterm(tell: Callable[[], None]) -> Iterator[None]:
  """Calls `tell` in a thread when SIGTERM comes, and exits with 0.

  Python calls a handler between two of its instructions, so not before a
  program is compiled; to its wakeup socket it writes at once. A training loop
  has a handler of its own meanwhile, which saves first.
  """
  ours, pythons = socket.socketpair()
  pythons.setblocking(False)

  def listen():
    while numbers := ours.recv(64):
      if signal.SIGTERM in numbers:
        tell()

  listener = threading.Thread(target=listen, daemon=True)
  listener.start()
  handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
  wakeup = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
  try:
    yield
  finally:
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGTERM, handler)
    pythons.close()
    listener.join()
    ours.close()


def _peak_memory_gb():
  who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  kib = sum(resource.getrusage(w).ru_maxrss for w in who)
  return kib * 1024 / 1e9


def _work_beside(workdir, phases, log):
  """The whole of a process beside."""
  threading.Thread(target=_end_with_parent, daemon=True).start()
  with open(log, "wb") as file:
    for stream in (1, 2):
      os.dup2(file.fileno(), stream)
  with command.clean_exit():
    Phases(workdir).run(*phases)


def _end_with_parent():
  multiprocessing.parent_process().join()
  os._exit(1)
