"""Several runs beside one another, as one self-contained page.

Every figure with its bootstrap interval, every paired difference to the first
run with its own, the curves of the runs over each other, and the keys of their
configs that differ. Nothing on the page comes from a network.
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from realm_jax import run_config
from realm_jax.config import InputError
from realm_jax.evals import curves, per_question, report, uncertainty

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Compared(NamedTuple):
  """Runs on the same questions; the first is what the others differ from.

  Attributes:
    paths: their files of scores.
    columns: {metric: [B] values} of each.
    intervals: {metric: (low, high)} of each run's means.
    differences: {metric: Difference} of each run but the first.
  """

  paths: list[pathlib.Path]
  columns: list[per_question.Scores]
  intervals: list[dict[str, tuple[float, float]]]
  differences: list[dict[str, uncertainty.Difference]]


def compare(
  paths: Sequence[pathlib.Path], resamples: int, seed: int
) -> Compared:
  """Compares files of scores.

  Args:
    paths: two or more, no more than LETTERS.
    resamples: of bootstrap and randomisation.
    seed: of both.

  Raises:
    InputError: as per_question.read_together, too few or many of them, or no
      resample.
  """
  if resamples < 1:
    raise InputError(f"config resamples={resamples}: wanted 1 or more")
  if not 2 <= len(paths) <= len(LETTERS):
    raise InputError(
      f"{len(paths)} runs given: wanted two or more, RUN_A RUN_B, and no more"
      f" than {len(LETTERS)}"
    )
  columns = per_question.read_together(paths)
  return Compared(
    list(paths),
    columns,
    [uncertainty.intervals(c, resamples, seed) for c in columns],
    [
      uncertainty.differences(columns[0], other, resamples, seed)
      for other in columns[1:]
    ],
  )


def table(compared: Compared) -> str:
  """What is printed: the runs, then each beside the first."""
  named = zip(LETTERS, compared.paths, strict=False)
  parts = ["\n".join(f"{letter}: {path}" for letter, path in named)]
  for letter, found in zip(LETTERS[1:], compared.differences, strict=False):
    parts.append(uncertainty.table(found, letter))
  return "\n\n".join(parts)


def write(
  path: str | os.PathLike, compared: Compared, command: str
) -> pathlib.Path:
  """Writes the page.

  Args:
    path: where to.
    compared: of `compare`.
    command: that makes it, for the page to tell.
  """
  path = pathlib.Path(path)
  report.write_page(path, render(compared, command))
  return path


def render(compared: Compared, command: str) -> str:
  """The page as HTML; see `write`."""
  folders = [_folder(path) for path in compared.paths]
  first = next(iter(compared.columns[0].values()))
  return report.fill_template(
    "compare.html.j2",
    title=f"{len(folders)} runs compared",
    command=command,
    runs=list(zip(LETTERS, compared.paths, strict=False)),
    num_questions=len(first),
    level=f"{uncertainty.LEVEL:.0%}",
    means=_means(compared),
    differences=_differences(compared),
    curves=_curves(folders),
    configs=_configs(folders),
  )


def _means(compared: Compared) -> dict:
  names = dict.fromkeys(m for columns in compared.columns for m in columns)
  letters = LETTERS[: len(compared.paths)]
  rows = [
    (
      metric,
      [
        _mean(columns[metric], bounds[metric]) if metric in columns else "–"
        for columns, bounds in zip(
          compared.columns, compared.intervals, strict=True
        )
      ],
    )
    for metric in names
  ]
  return {"name": "Means", "unit": "", "columns": list(letters), "rows": rows}


def _mean(values, bounds: tuple[float, float]) -> str:
  judged = values[~np.isnan(values)]
  if not len(judged):
    return "–"
  return f"{judged.mean():.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _differences(compared: Compared) -> list[dict]:
  return [
    {
      "name": f"{letter} − A",
      "unit": "paired, question by question",
      "columns": ["A", letter, "difference", "interval", "p", "test", "n"],
      "rows": [
        (
          metric,
          [
            f"{d.a:.3f}",
            f"{d.b:.3f}",
            f"{d.b - d.a:+.3f}",
            f"[{d.low:+.3f}, {d.high:+.3f}]",
            f"{d.p:.2g}",
            d.test,
            d.n,
          ],
        )
        for metric, d in found.items()
      ],
    }
    for letter, found in zip(LETTERS[1:], compared.differences, strict=False)
  ]


def _folder(path: pathlib.Path) -> pathlib.Path:
  """The directory whose per_question/ a file of scores is in, else its own."""
  parent = path.absolute().parent
  return parent.parent if parent.name == per_question.FOLDER else parent


def _curves(folders: Sequence[pathlib.Path]) -> list[dict]:
  """Figures of what ran in all folders, or in some, under the same name."""
  rows: dict[str, dict[str, list[dict]]] = {}
  for letter, folder in zip(LETTERS, folders, strict=False):
    for path in [folder, *sorted(folder.glob("*/"))]:
      if (path / "metrics.jsonl").is_file():
        name = "" if path == folder else path.name
        read = curves.read_metrics(path / "metrics.jsonl")
        rows.setdefault(name, {})[letter] = read
  return [
    {
      "name": name,
      "figures": report.show_figures(curves.overlay(runs)),
    }
    for name, runs in rows.items()
    if len(runs) > 1
  ]


def _configs(folders: Sequence[pathlib.Path]) -> dict | None:
  """The config keys in which the runs differ; None where nothing is known."""
  flat = [
    run_config.flatten(run_config.read(folder))
    for folder in folders
    if (folder / "config.json").is_file()
  ]
  if len(flat) < len(folders):
    return None
  rows = [
    (key, [_show(config, key) for config in flat])
    for key in sorted({key for config in flat for key in config})
  ]
  return {
    "name": "Config keys in which the runs differ",
    "unit": "",
    "columns": list(LETTERS[: len(flat)]),
    "rows": [(key, row) for key, row in rows if len(set(row)) > 1],
  }


def _show(config: Mapping[str, Any], key: str) -> str:
  return json.dumps(config[key]) if key in config else "–"
