"""The runs under a folder as a person watches them, read from their files.

Names come from looking at the folder, never from a visitor: a name that isn't
there is refused, so no other file can be reached. Nothing is written, and no
model is opened.
"""

import contextlib
import json
import os
import pathlib
import threading
from typing import Any

from realm_jax import run_config
from realm_jax.config import InputError
from realm_jax.data.fill_in import MASK
from realm_jax.retrieval import index
from realm_jax.serve.run import find_run
from realm_jax.serve.watched import Watched, kind_of

_DEEP = ("", "*/", "*/*/")  # where runs are looked for
_MOST_RUNS = 200
_FILLER = "pretrain"  # of a demo's runs, the one that fills in a [MASK]
_LONGEST_LINE = 1 << 16  # bytes


class Folder:
  """A folder of runs, or a single run.

  Attributes:
    path: its directory.
    default: name of the run that is asked where none is named.
    filler: name of the run that is asked to fill in a [MASK] then.
  """

  def __init__(self, path: str | os.PathLike):
    """Looks for runs.

    Raises:
      InputError: no trained run is there.
    """
    self.path = pathlib.Path(path)
    best = find_run(self.path)
    self._watched: dict[str, Watched] = {}
    self._lock = threading.Lock()  # of what is watched
    self.default = self._name(best)
    self.filler = self._find_filler(best)

  def runs(self) -> dict[str, pathlib.Path]:
    """{name: directory} of the runs that are there now, oldest first."""
    found = [
      path
      for deep in _DEEP
      for path in ([self.path] if not deep else self.path.glob(deep))
      if (path / "config.json").is_file()
      and (
        (path / "checkpoints").is_dir() or (path / "metrics.jsonl").is_file()
      )
    ]
    found.sort(key=_began)
    return {self._name(path): path for path in found[:_MOST_RUNS]}

  def find(self, name: str) -> pathlib.Path:
    """The directory of a run.

    Raises:
      InputError: there is none of this name.
    """
    runs = self.runs()
    if name not in runs:
      there = ", ".join(runs)
      raise InputError(f"run {name[:80]!r}: no such run; there are: {there}")
    return runs[name]

  def check(self, name: str, version: str) -> None:
    """Refuses what isn't there.

    Args:
      name: of a run.
      version: number of one of its index versions; "": the newest.

    Raises:
      InputError: there is no such run, or no such version.
    """
    there = [str(v) for v in index.list_versions(self.find(name))]
    if version and version not in there:
      raise InputError(
        f"index {version[:20]!r}: {name} has no such version; there are:"
        f" {', '.join(there) or 'none'}"
      )

  def route(self, question: str) -> str:
    """Which run is asked a question that names none."""
    return self.filler if MASK in question else self.default

  def newest(self, name: str) -> tuple[int, int] | None:
    """The run's newest index version, and what changes as it is made anew."""
    path = self.find(name)
    version = index.latest_version(path)
    if version is None:
      return None
    manifest = index.version_path(path, version) / "manifest.json"
    try:
      return version, manifest.stat().st_mtime_ns
    except FileNotFoundError:  # deleted meanwhile
      return version, 0

  def describe(self) -> list[dict[str, Any]]:
    """What is known of each run, without its curves."""
    with self._lock:
      return [self._watch(*run).describe() for run in self.runs().items()]

  def read_curves(self, name: str) -> dict[str, Any]:
    """A run's curves; see Watched.read_curves.

    Raises:
      InputError: no such run, or its metrics.jsonl is damaged.
    """
    path = self.find(name)
    with self._lock:
      return self._watch(name, path).read_curves()

  def differences(self) -> dict[str, dict[str, Any]]:
    """{config key: {run: value}} of the keys in which the runs differ."""
    configs = {}
    for name, path in self.runs().items():
      with contextlib.suppress(InputError):  # `describe` tells of it
        configs[name] = run_config.flatten(run_config.read(path))
    keys = sorted({key for config in configs.values() for key in config})
    rows = {
      key: {name: config.get(key) for name, config in configs.items()}
      for key in keys
    }
    return {
      key: row
      for key, row in rows.items()
      if len({str(value) for value in row.values()}) > 1
    }

  def _name(self, path: pathlib.Path) -> str:
    if path == self.path:
      return path.resolve().name
    return path.relative_to(self.path).as_posix()

  def _find_filler(self, best: pathlib.Path) -> str:
    pretrained = best.parent / _FILLER
    if best != self.path and kind_of(run_config.read(best)) == "reads":
      if (pretrained / "checkpoints").is_dir():
        return self._name(pretrained)
    return self.default

  def _watch(self, name: str, path: pathlib.Path) -> Watched:
    if name not in self._watched:
      self._watched[name] = Watched(name, path)
    return self._watched[name]


def _began(path: pathlib.Path) -> float:
  """When a run began: its first figures tell, whoever copied its files."""
  try:
    with open(path / "metrics.jsonl", "rb") as f:
      return float(json.loads(f.readline(_LONGEST_LINE))["time"])
  except (OSError, ValueError, TypeError, KeyError):  # it has none yet
    return (path / "config.json").stat().st_mtime
