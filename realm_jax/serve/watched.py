"""One run as a person watches it: what is read of its files again and again."""

import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from realm_jax import run_config
from realm_jax.config import InputError
from realm_jax.evals import curves
from realm_jax.retrieval import heartbeat, index, journal
from realm_jax.run_config import RunConfig

_POINTS = 300  # of a curve; more are put together
# A key of config.json that only one kind of run has, and what such a run does.
_KINDS = {
  "reader_beam_size": "reads",
  "evidence": "fills in",
  "mask_rate": "finds",
}


class Watched:
  """A run that is looked at again and again."""

  def __init__(self, name: str, path: pathlib.Path):
    self._name, self._path = name, path
    self._workers = heartbeat.Watch(path)
    self._tail = _Tail(path / "metrics.jsonl")

  def describe(self) -> dict[str, Any]:
    """What is known of the run; where a file of it is damaged, "trouble"."""
    known = {
      "name": self._name,
      "kind": "",
      "step": None,
      "num_steps": None,
      "updated": None,
      "versions": [],
      "swaps": [],
      "workers": [],
      "trouble": "",
    }
    try:
      for part in self._parts():
        known |= part
    except (InputError, OSError, AttributeError, TypeError, KeyError) as e:
      known["trouble"] = str(e)  # a file was damaged, or went meanwhile
    return known

  def _parts(self) -> Iterable[dict[str, Any]]:
    config = run_config.read(self._path)
    steps = [p.name for p in (self._path / "checkpoints").glob("*")]
    yield {
      "kind": kind_of(config),
      "step": max((int(s) for s in steps if s.isdecimal()), default=None),
      "num_steps": config.get("train", {}).get("num_steps"),
      "updated": self._tail.updated(),
    }
    yield {"versions": self._versions()}
    yield {"swaps": journal.read_swaps(self._path)}
    yield {
      "workers": [
        {
          "id": worker,
          "state": str(said.get("state", "")),
          "message": str(said.get("message", "")),
          "ended": said.get("state") in heartbeat.ENDED,
          "silent_seconds": round(silent, 1),
        }
        for worker, (said, silent) in self._workers.look().items()
      ]
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
            "headline": panel.title in curves.HEADLINE,
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
    lines = whole.decode(errors="replace").splitlines()
    rows = curves.parse_lines(lines, self._path)
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
  x, y = x[np.isfinite(y)], y[np.isfinite(y)]
  if not len(x):
    return {"steps": [], "values": []}
  bins = np.array_split(np.arange(len(x)), min(len(x), _POINTS))

  def four(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]

  curve = {
    "steps": [float(x[b[-1]]) for b in bins],
    "values": four(y[b].mean() for b in bins),
  }
  if len(bins) < len(x):
    curve["low"] = four(y[b].min() for b in bins)
    curve["high"] = four(y[b].max() for b in bins)
  return curve


def kind_of(config: RunConfig) -> str:
  """What a run of this config does; "" where nothing tells."""
  return next((kind for key, kind in _KINDS.items() if key in config), "")
