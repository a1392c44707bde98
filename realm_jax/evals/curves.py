"""Which of a run's metrics stand in which figure, from its metrics.jsonl."""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from realm_jax.config import InputError
from realm_jax.evals import plots

SE = "_se"  # metric x_se holds the standard error of metric x


class Panel(NamedTuple):
  """A figure of each run that has one of its metrics.

  Attributes:
    title, unit: what is on the y axis.
    metrics: pattern of the metrics' names, without the evaluator's prefix.
  """

  title: str
  unit: str
  metrics: str


PANELS = (
  Panel("Loss", "nats", r".*loss|nll"),
  Panel("Retrieval utility", "nats a masked wordpiece", r".*utility"),
  Panel(
    "Recall",
    "share of queries",
    r".*recall_\d+|gold_in_candidates|answer_in_beam",
  ),
  Panel(
    "Answers", "share of questions", r"exact_match|f1|index_match|.*oracle"
  ),
  Panel("Accuracy", "share of queries", r".*accuracy"),
  Panel("Null-block mass", "p(null block | query)", r"null_mass"),
  Panel("Candidate entropy", "nats", r".*entropy"),
  Panel("Staleness of the index", "steps", r".*staleness|steps_past_bound"),
  Panel("Index version", "number", r"index_version"),
  Panel("Time lost to refresh", "share of the run's", r"refresh_share"),
  Panel("Workers alive", "number", r"workers_alive"),
  Panel("Top-k kept at a swap", "share of blocks", r".*overlap"),
  Panel("Throughput", "steps a second", r"steps_per_second"),
  Panel("Step time", "seconds", r"step_seconds_p\d+"),
  Panel("Tokens", "a second", r"tokens_per_second"),
  Panel("Model FLOPs", "a second", r"model_flops_per_second"),
  Panel("MFU", "share of the devices' peak", r"mfu"),
  Panel("Padding", "share of what is computed", r"padding"),
  Panel("Refresh", "blocks a second", r".*blocks_per_second"),
  Panel("Time", "seconds", r".*_seconds"),
  Panel("Gradient norm", "nats", r"grad_norm"),
)

# What one wants to see first.
HEADLINE = (
  "Loss",
  "Retrieval utility",
  "Recall",
  "Answers",
  "Staleness of the index",
  "Null-block mass",
  "Throughput",
)


class Figure(NamedTuple):
  """A drawn panel.

  Attributes:
    panel: what it shows.
    svg: one `<svg>` element.
    last: {metric: its last value}.
  """

  panel: Panel
  svg: str
  last: dict[str, float]


def read_metrics(path: str | os.PathLike) -> list[dict]:
  """Lines of a metrics.jsonl; a last line still being written is left out.

  Raises:
    InputError: another line isn't a JSON object.
  """
  lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
  return parse_lines(lines, path)


def parse_lines(lines: list[str], path: str | os.PathLike) -> list[dict]:
  """read_metrics, of lines of the file at `path`."""
  rows = []
  for number, line in enumerate(lines, 1):
    try:
      rows.append({**json.loads(line)})
    except (ValueError, TypeError) as e:
      if number < len(lines):
        raise InputError(f"{path}:{number}: not a JSON object ({e})") from e
  return rows


def draw_figures(rows: list[dict]) -> list[Figure]:
  """Draws every panel that one of the metrics belongs to."""
  series = find_series(rows)
  return [
    _figure(panel, names, series)
    for panel in PANELS
    if (names := find_names(panel, series))
  ]


def overlay(runs: Mapping[str, list[dict]]) -> list[Figure]:
  """Draws the first panels of several runs, a figure a metric, a line a run.

  Args:
    runs: {name: rows of its metrics.jsonl}.
  """
  series = {name: find_series(rows) for name, rows in runs.items()}
  figures = []
  for panel in PANELS:
    if panel.title not in HEADLINE:
      continue
    for metric in dict.fromkeys(
      m for found in series.values() for m in find_names(panel, found)
    ):
      lines = {
        n: found[metric] for n, found in series.items() if metric in found
      }
      svg = plots.curves_svg(lines, x_label="step", y_label=panel.unit)
      titled = panel._replace(title=f"{panel.title}: {metric}")
      last = {name: values[-1] for name, (_, values) in lines.items()}
      figures.append(Figure(titled, svg, last))
  return figures


def find_series(rows: list[dict]) -> dict[str, tuple[list, list]]:
  """{metric: (steps, values)}, each metric at the steps that have it."""
  series: dict[str, tuple[list, list]] = {}
  for row in rows:
    for name, value in row.items():
      if name not in ("step", "time") and isinstance(value, int | float):
        steps, values = series.setdefault(name, ([], []))
        steps.append(row.get("step", 0))
        values.append(value)
  return series


def find_names(panel: Panel, series: Mapping) -> list[str]:
  """The panel's metrics; "dev/loss" is a loss."""
  return [
    name
    for name in series
    if re.fullmatch(panel.metrics, name.rpartition("/")[2])
    and not name.endswith(SE)
  ]


def _figure(panel: Panel, names: list[str], series: Mapping) -> Figure:
  svg = plots.curves_svg(
    {name: series[name] for name in names},
    x_label="step",
    y_label=panel.unit,
    errors={
      name: series[name + SE][1]
      for name in names
      if series.get(name + SE, ([],))[0] == series[name][0]
    },
  )
  last = {name: series[name][1][-1] for name in names}
  return Figure(panel, svg, last)
