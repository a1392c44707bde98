"""What the workers of a run are doing: RUN/workers/<id>.json, one for each.

Whether a worker lives is told by its file changing, on the reader's own clock:
clocks of other machines, and times of files, can be anything.
"""

import contextlib
import fcntl
import os
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

from realm_jax import files
from realm_jax.config import InputError

ENDED = ("ended", "stopped", "gave up")  # states of a worker that is no more
_SILENT_SECONDS = 60.0  # after which a worker is said to be silent


class Heartbeat:
  """A worker's file; `beat` writes it."""

  def __init__(self, path: pathlib.Path, who: dict[str, Any]):
    self._path, self._now, self._beats = path, who, 0

  def beat(self, **changes: Any) -> None:
    """Writes what changed, and that the worker lives; as far as the disk can."""
    self._beats += 1
    self._now |= {**changes, "beats": self._beats, "time": time.time()}
    with contextlib.suppress(OSError, InputError):  # no work is lost by it
      files.write_json(self._path, self._now)


@contextlib.contextmanager
def held(run_dir: str | os.PathLike, name: str) -> Iterator[Heartbeat]:
  """Takes a worker's name, which one process alone can have.

  Raises:
    InputError: another worker has it, or it can't be a file's name.
  """
  if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
    raise InputError(
      f"--id={name}: wanted letters, digits, dots, dashes and underscores"
    )
  folder = _folder(run_dir)
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / f"{name}.lock", "ab") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
      raise InputError(
        f"{folder}: a worker {name} is at work here: give this one another --id"
      ) from e
    who = {"id": name, "pid": os.getpid(), "host": os.uname().nodename}
    yield Heartbeat(folder / f"{name}.json", who)


class Watch:
  """The workers of a run, as a process sees them that isn't one."""

  def __init__(self, run_dir: str | os.PathLike):
    self._folder = _folder(run_dir)
    self._seen: dict[str, tuple[dict, float]] = {}

  def look(self) -> dict[str, tuple[dict[str, Any], float]]:
    """Worker -> its last words, and the seconds since they were new."""
    now = time.monotonic()
    for path in sorted(self._folder.glob("*.json")):
      with contextlib.suppress(InputError):  # written whole: it is just gone
        said = files.read_json(path)
        if self._seen.get(path.stem, (None,))[0] != said:
          self._seen[path.stem] = said, now
    return {name: (said, now - at) for name, (said, at) in self._seen.items()}

  def figures(self) -> dict[str, float]:
    """workers_alive, and worker_silent_seconds of the one that spoke last."""
    alive = [
      silent for said, silent in self.look().values() if not _has_ended(said)
    ]
    figures = {
      "workers_alive": sum(silent < _SILENT_SECONDS for silent in alive)
    }
    return figures | ({"worker_silent_seconds": min(alive)} if alive else {})

  def in_words(self) -> str:
    """What each of them does, in a line."""
    words = [
      f"{name}: {said.get('message', '')}"
      + ("" if _has_ended(said) else f", {silent:.0f} s ago")
      for name, (said, silent) in self.look().items()
    ]
    return "; ".join(words) or "none was ever seen"


def _has_ended(said: dict[str, Any]) -> bool:
  return said.get("state") in ENDED


def _folder(run_dir: str | os.PathLike) -> pathlib.Path:
  return pathlib.Path(run_dir) / "workers"
