"""The runs under a folder as a person watches them, read from their files.

Names come from looking at the folder, never from a visitor: a name that isn't
there is refused, so no other file can be reached. Nothing is written, and no
model is opened.
"""

import json
import os
import pathlib
from typing import Any

import numpy as np

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data.fill_in import MASK
from realm_jax.evals import curves
from realm_jax.retrieval import heartbeat, index, journal
from realm_jax.serve.run import find_run

_DEEP = ("", "*/", "*/*/")  # where runs are looked for
_MOST_RUNS = 200
_LONGEST_LINE = 1 << 16  # bytes
_POINTS = 300  # of a curve; more are put together
# What one wants to see first.
_HEADLINE = (
  "Loss",
  "Retrieval utility",
  "Recall",
  "Staleness of the index",
  "Null-block mass",
  "Throughput",
)
# A key of config.json that only one kind of run has, and what such a run does.
_KINDS = {
  "reader_beam_size": "reads",
  "evidence": "fills in",
  "mask_rate": "finds",
}


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
    self._watched: dict[str, _Watched] = {}
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
    return [self._watch(name).describe() for name in self.runs()]

  def read_curves(self, name: str) -> dict[str, Any]:
    """A run's curves; see _Watched.read_curves.

    Raises:
      InputError: no such run, or its metrics.jsonl is damaged.
    """
    self.find(name)
    return self._watch(name).read_curves()

  def differences(self) -> dict[str, dict[str, Any]]:
    """{config key: {run: value}} of the keys in which the runs differ."""
    configs = {
      name: _flatten(files.read_json(path / "config.json"))
      for name, path in self.runs().items()
    }
    keys = sorted({key for config in configs.values() for key in config})
    rows = {
      key: {name: config.get(key) for name, config in configs.items()}
      for key in keys
    }
    return {
      key: row
      for key, row in rows.items()
      if len(set(map(str, row.values()))) > 1
    }

  def _name(self, path: pathlib.Path) -> str:
    if path == self.path:
      return path.resolve().name
    return path.relative_to(self.path).as_posix()

  def _find_filler(self, best: pathlib.Path) -> str:
    kind = _kind(files.read_json(best / "config.json"))
    pretrained = best.parent / "pretrain"
    if kind == "reads" and (pretrained / "checkpoints").is_dir():
      return self._name(pretrained) if best != self.path else self.default
    return self.default

  def _watch(self, name: str) -> "_Watched":
    path = self.find(name)
    if name not in self._watched:
      self._watched[name] = _Watched(name, path)
    return self._watched[name]


class _Watched:
  """A run that is looked at again and again."""

  def __init__(self, name: str, path: pathlib.Path):
    self._name, self._path = name, path
    self._workers = heartbeat.Watch(path)
    self._tail = _Tail(path / "metrics.jsonl")

  def describe(self) -> dict[str, Any]:
    config = files.read_json(self._path / "config.json")
    steps = [p.name for p in (self._path / "checkpoints").glob("*")]
    return {
      "name": self._name,
      "kind": _kind(config),
      "step": max((int(s) for s in steps if s.isdecimal()), default=None),
      "num_steps": config.get("train", {}).get("num_steps"),
      "updated": self._tail.updated(),
      "versions": self._versions(),
      "swaps": _told(lambda: journal.read_swaps(self._path), []),
      "workers": [
        {
          "id": worker,
          "state": str(said.get("state", "")),
          "message": str(said.get("message", "")),
          "ended": said.get("state") in heartbeat.ENDED,
          "silent_seconds": round(silent, 1),
        }
        for worker, (said, silent) in self._workers.look().items()
      ],
    }

  def read_curves(self) -> dict[str, Any]:
    """{"mark", "panels"}: each panel's curves, thinned.

    The mark is another one when the curves are.
    """
    series = self._tail.read()
    panels = []
    for order, panel in enumerate(curves.PANELS):
      if names := curves.find_names(panel, series):
        panels.append(
          {
            "title": panel.title,
            "unit": panel.unit,
            "order": order,
            "headline": panel.title in _HEADLINE,
            "curves": {name: thin(*series[name]) for name in names},
          }
        )
    return {"mark": self._tail.mark, "panels": panels}

  def _versions(self) -> list[dict[str, Any]]:
    versions = []
    for version in index.list_versions(self._path):
      try:
        made = index.read_manifest(self._path, version)
        file = index.version_path(self._path, version) / "manifest.json"
        known = {
          "params_step": made["params_step"],
          "num_blocks": made["shape"][0],
          "seconds": made["seconds"],
          "made": file.stat().st_mtime,
        }
      except (InputError, OSError) as e:
        known = {"trouble": str(e)}
      versions.append({"version": version, **known})
    return versions


class _Tail:
  """A growing metrics.jsonl, of which only what is new is read."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._file: tuple[int, int] | None = None  # inode, bytes read
    self._series: dict[str, tuple[list, list]] = {}

  @property
  def mark(self) -> str:
    """Changes with the file."""
    return "-".join(map(str, self._file or ()))

  def updated(self) -> float | None:
    """When the file was last written to, seconds since 1970."""
    return self._path.stat().st_mtime if self._path.is_file() else None

  def read(self) -> dict[str, tuple[list, list]]:
    """{metric: (steps, values)} of all that is written so far.

    A resumed run cuts its file: then it is read from the beginning.
    """
    if not self._path.is_file():
      return {}
    with open(self._path, "rb") as f:
      stat = os.fstat(f.fileno())
      inode, done = self._file or (0, 0)
      if inode != stat.st_ino or stat.st_size < done:
        self._series, done = {}, 0
      f.seek(done)
      whole = f.read().rpartition(b"\n")[0]
    rows = curves.parse_lines(whole.decode().splitlines(), self._path)
    for name, (steps, values) in curves.find_series(rows).items():
      have = self._series.setdefault(name, ([], []))
      have[0].extend(steps)
      have[1].extend(values)
    self._file = stat.st_ino, done + len(whole) + bool(whole)
    return self._series


def thin(steps: list[float], values: list[float]) -> dict[str, list[float]]:
  """A curve of at most so many points, each the mean of its neighbours.

  Returns:
    "steps" and "values", and "low" and "high" of those put together.
  """
  x, y = np.asarray(steps, float), np.asarray(values, float)
  bins = np.array_split(np.arange(len(x)), min(len(x), _POINTS))
  four = lambda values: [float(f"{v:.4g}") for v in values]  # noqa: E731
  curve = {
    "steps": [float(x[b[-1]]) for b in bins],
    "values": four(y[b].mean() for b in bins),
  }
  if len(bins) < len(x):
    curve["low"] = four(y[b].min() for b in bins)
    curve["high"] = four(y[b].max() for b in bins)
  return curve


def _began(path: pathlib.Path) -> float:
  """When a run began: its first figures tell, whoever copied its files."""
  try:
    with open(path / "metrics.jsonl", "rb") as f:
      return float(json.loads(f.readline(_LONGEST_LINE))["time"])
  except (OSError, ValueError, TypeError, KeyError):  # it has none yet
    return (path / "config.json").stat().st_mtime


def _kind(config: dict[str, Any]) -> str:
  return next((kind for key, kind in _KINDS.items() if key in config), "")


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  flat = {}
  for key, value in config.items():
    if isinstance(value, dict):
      flat |= _flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def _told(read, otherwise):
  """What `read` reads; `otherwise` where its file is damaged."""
  try:
    return read()
  except InputError:
    return otherwise
