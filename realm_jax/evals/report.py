"""One self-contained page about a run, or about all runs of a demo.

Reads what the runs left in their directories (metrics.jsonl, config.json,
summary.json, predictions/*.jsonl) and writes report.html: curves with units,
tables, and the blocks retrieved for sample questions. Nothing on the page comes
from a network, and text of a corpus is escaped: it is shown, never run.
"""

import json
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jinja2
import markupsafe

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.evals import exact_match, plots

_SE = "_se"  # metric x_se holds the standard error of metric x
_SAMPLES = 12  # questions shown of each predictions file


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
  Panel("Loss", "nats", r".*loss|.*nll"),
  Panel("Retrieval utility", "nats a masked wordpiece", r".*utility"),
  Panel("Recall", "share of queries", r".*recall.*"),
  Panel("Exact match", "share of questions", r".*exact_match|f1|.*oracle"),
  Panel("Accuracy", "share of queries", r".*(accuracy|correct)"),
  Panel("Null-block mass", "p(null block | query)", r".*null.*"),
  Panel("Staleness of the index", "steps", r".*staleness(_steps)?"),
  Panel("Index version", "version", r"index_version"),
  Panel("Top-k kept at a swap", "share of blocks", r".*overlap.*"),
  Panel("Throughput", "steps a second", r"steps_per_second"),
  Panel("Time", "seconds", r".*seconds(_.*)?"),
)

_UNITS = {
  "seconds": "seconds",
  "recall": "share of questions with a gold block among the first k",
  "retrieval_utility": "nats a masked wordpiece, mean ± standard error",
  "exact_match": "share of questions",
}


def write_report(
  workdir: str | os.PathLike, path: str | os.PathLike | None = None
) -> pathlib.Path:
  """Writes the page of a workdir to `path`, by default report.html in it.

  Raises:
    InputError: there is no run under the workdir.
  """
  path = pathlib.Path(path or pathlib.Path(workdir) / "report.html")
  page = render(workdir)
  with files.atomic_publish(path) as tmp:
    tmp.write_text(page, encoding="utf-8")
  return path


def render(workdir: str | os.PathLike) -> str:
  """The page as HTML; see `write_report`."""
  workdir = pathlib.Path(workdir)
  runs = list(_runs(workdir))
  predictions = _find_predictions(workdir)
  if not (runs or predictions or (workdir / "summary.json").exists()):
    raise InputError(
      f"--workdir={workdir}: no metrics.jsonl, summary.json or predictions/ in"
      " it or one level below: give the directory of a run or of a demo"
    )
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  return environment.get_template("report.html.j2").render(
    workdir=workdir.resolve().name,
    command=f"python -m experiments.report --workdir={workdir}",
    tables=_tables(workdir / "summary.json"),
    runs=[_section(name, path) for name, path in runs],
    samples=[_samples(workdir, path) for path in predictions],
  )


def read_metrics(path: str | os.PathLike) -> list[dict]:
  """Lines of a metrics.jsonl; a last line still being written is left out.

  Raises:
    InputError: another line isn't a JSON object.
  """
  lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
  rows = []
  for number, line in enumerate(lines, 1):
    try:
      rows.append({**json.loads(line)})
    except (ValueError, TypeError) as e:
      if number < len(lines):
        raise InputError(f"{path}:{number}: not a JSON object ({e})") from e
  return rows


def _runs(workdir: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
  """(name, directory) of each run, in the order in which they began."""
  found = []
  for path in [workdir, *sorted(workdir.glob("*/"))]:
    if (path / "metrics.jsonl").is_file():
      rows = read_metrics(path / "metrics.jsonl")
      began = rows[0].get("time", 0) if rows else math.inf
      found.append((began, path.resolve().name, path))
  for _, name, path in sorted(found):
    yield name, path


def _section(name: str, run: pathlib.Path) -> dict:
  """What the template shows of one run."""
  rows = read_metrics(run / "metrics.jsonl")
  series = _series(rows)
  figures = [
    _figure(panel, chosen, series)
    for panel in PANELS
    if (chosen := _chosen(panel, series))
  ]
  steps = [row["step"] for row in rows if "step" in row]
  return {
    "name": name,
    "source": f"{run.name}/metrics.jsonl",
    "command": _command(run),
    "steps": max(steps, default=0),
    "figures": figures,
  }


def _series(rows: list[dict]) -> dict[str, tuple[list, list]]:
  """{metric: (steps, values)}, each metric at the steps that have it."""
  series: dict[str, tuple[list, list]] = {}
  for row in rows:
    for name, value in row.items():
      if name not in ("step", "time") and isinstance(value, int | float):
        steps, values = series.setdefault(name, ([], []))
        steps.append(row.get("step", 0))
        values.append(value)
  return series


def _chosen(panel: Panel, series: Mapping) -> list[str]:
  """The panel's metrics; "dev/loss" is a loss."""
  return [
    name
    for name in series
    if re.fullmatch(panel.metrics, name.rpartition("/")[2])
    and not name.endswith(_SE)
  ]


def _figure(panel: Panel, names: list[str], series: Mapping) -> dict:
  svg = plots.curves_svg(
    {name: series[name] for name in names},
    x_label="step",
    y_label=panel.unit,
    errors={
      name: series[name + _SE][1]
      for name in names
      if series.get(name + _SE, ([],))[0] == series[name][0]
    },
  )
  last = {name: _number(series[name][1][-1]) for name in names}
  return {
    "title": panel.title,
    "unit": panel.unit,
    "svg": markupsafe.Markup(svg),
    "last": last,
  }


def _command(run: pathlib.Path) -> str:
  """The command that made a run, as the run itself has it."""
  path = run / "config.json"
  config = files.read_json(path) if path.is_file() else {}
  return config.get("command", "") if isinstance(config, dict) else ""


def _tables(path: pathlib.Path) -> list[dict]:
  """The summary as tables: one for each group, one for the single values."""
  if not path.is_file():
    return []
  summary = files.read_json(path)
  single = {k: v for k, v in summary.items() if not isinstance(v, dict)}
  tables = [
    _table(name, group)
    for name, group in summary.items()
    if isinstance(group, dict)
  ]
  return tables + ([_table("the whole", single)] if single else [])


def _table(name: str, group: Mapping) -> dict:
  """Rows of a {row: {column: value}} or {row: value} group."""
  columns = []
  for value in group.values():
    if isinstance(value, dict):
      columns += [c for c in value if c not in columns]
  columns.sort(key=lambda c: (not c.isdigit(), int(c) if c.isdigit() else 0))
  rows = [
    (row, [_number(v.get(c)) for c in columns])
    if isinstance(v, dict)
    else (row, [_number(v)])
    for row, v in group.items()
  ]
  heads = [f"@{c}" if c.isdigit() else c for c in columns] or ["value"]
  unit = _UNITS.get(name, "")
  return {"name": name, "unit": unit, "columns": heads, "rows": rows}


def _number(value) -> str:
  """A value for people: [mean, se] pairs with ±, floats with four digits."""
  if isinstance(value, list) and len(value) == 2:
    return " ± ".join(map(_number, value))
  if isinstance(value, float):
    return f"{value:.4g}"
  return "–" if value is None else str(value)


def _find_predictions(workdir: pathlib.Path) -> list[pathlib.Path]:
  patterns = ("predictions/*.jsonl", "*/predictions/*.jsonl")
  return sorted(p for pattern in patterns for p in workdir.glob(pattern))


def _samples(workdir: pathlib.Path, path: pathlib.Path) -> dict:
  """Questions evenly spaced over a predictions file, with their evidence."""
  rows = exact_match.read_predictions(path)
  stride = max(1, len(rows) // _SAMPLES)
  return {
    "source": str(path.relative_to(workdir)),
    "count": len(rows),
    "right": sum(row.exact_match for row in rows),
    "rows": rows[::stride][:_SAMPLES],
  }
