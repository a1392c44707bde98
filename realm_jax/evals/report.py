"""One self-contained page about a run, or about all runs of a demo.

Reads what the runs left in their directories (metrics.jsonl, config.json,
summary.json, predictions/*.jsonl) and writes report.html: curves with units,
tables, and the blocks retrieved for sample questions. Nothing on the page comes
from a network, and text of a corpus is escaped: it is shown, never run.
"""

import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2
import markupsafe

from realm_jax import files, run_config
from realm_jax.config import InputError
from realm_jax.evals import curves, exact_match
from realm_jax.retrieval import journal

_SAMPLES = 12  # questions shown of each predictions file


_NATS = "nats a masked wordpiece, mean ± standard error"
_UNITS = {
  "seconds": "seconds",
  "recall": "share of questions with a gold block among the first k",
  "masked_recall": "share of masked queries with it among the first k",
  "retrieval_utility": _NATS,
  "gold_utility": _NATS,
  "null_mass": "p(null block | query), mean ± standard error",
  "groups": "shares of questions, mean ± standard error",
  "exact_match": "share of questions",
  "exact_match_se": "standard error of that",
  "masked_recall_5_gain": "share of masked queries, mean ± standard error",
  "retrieval_utility_gain": _NATS,
  "index_versions": "number",
  "questions": "number",
  "peak_memory_gb": "GB",
  "seconds_total": "seconds",
}


def write_report(
  workdir: str | os.PathLike,
  path: str | os.PathLike | None = None,
  changes: Mapping[pathlib.Path, Any] | None = None,
) -> pathlib.Path:
  """Writes the page of a workdir to `path`, by default report.html in it.

  Args:
    workdir: of a run or a demo.
    path: see above.
    changes: {a run's directory: serve.churn.Changes}.

  Raises:
    InputError: there is no run under the workdir.
  """
  path = pathlib.Path(path or pathlib.Path(workdir) / "report.html")
  page = render(workdir, changes)
  write_page(path, page)
  return path


def write_page(path: pathlib.Path, page: str) -> None:
  """Publishes a page of HTML."""
  with files.atomic_publish(path) as tmp:
    tmp.write_text(page, encoding="utf-8")


def render(
  workdir: str | os.PathLike,
  changes: Mapping[pathlib.Path, Any] | None = None,
) -> str:
  """The page as HTML; see `write_report`."""
  workdir, changes = pathlib.Path(workdir), changes or {}
  runs = list(find_runs(workdir))
  predictions = _find_predictions(workdir)
  if not (runs or predictions or (workdir / "summary.json").exists()):
    raise InputError(
      f"--workdir={workdir}: no metrics.jsonl, summary.json or predictions/ in"
      " it or one level below: give the directory of a run or of a demo"
    )
  return fill_template(
    "report.html.j2",
    title=f"{workdir.resolve().name}, report",
    workdir=workdir.resolve().name,
    command=f"python -m experiments.report --workdir={workdir}",
    tables=_tables(workdir / "summary.json"),
    summary_command=_summary_command(workdir),
    runs=[
      _section(name, path) | {"changes": changes.get(path)}
      for name, path in runs
    ],
    samples=[_samples(workdir, path) for path in predictions],
  )


def fill_template(name: str, **values: Any) -> str:
  """One of the templates beside this file, every value escaped."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  return environment.get_template(name).render(values)


def find_runs(workdir: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
  """(name, directory) of each run, in the order in which they began."""
  found = []
  for path in [workdir, *sorted(workdir.glob("*/"))]:
    if (path / "metrics.jsonl").is_file():
      rows = curves.read_metrics(path / "metrics.jsonl")
      began = rows[0].get("time", 0) if rows else math.inf
      found.append((began, path.resolve().name, path))
  for _, name, path in sorted(found):
    yield name, path


def _section(name: str, run: pathlib.Path) -> dict:
  """What the template shows of one run."""
  rows = curves.read_metrics(run / "metrics.jsonl")
  steps = [row["step"] for row in rows if "step" in row]
  return {
    "name": name,
    "source": f"{run.name}/metrics.jsonl",
    "command": _command(run),
    "config": f"{run.name}/config.json",
    "steps": max(steps, default=0),
    "figures": show_figures(curves.draw_figures(rows)),
    "index": _index(run),
  }


def show_figures(figures: Sequence[curves.Figure]) -> list[dict]:
  """Drawn panels as the template takes them."""
  return [
    {
      "title": figure.panel.title,
      "unit": figure.panel.unit,
      "svg": markupsafe.Markup(figure.svg),
      "last": {name: _number(value) for name, value in figure.last.items()},
    }
    for figure in figures
  ]


def _index(run: pathlib.Path) -> dict | None:
  """The timeline of the index versions that a run searched."""
  swaps = journal.read_swaps(run)
  columns = {
    "searched from step": "step",
    "params of step": "params_step",
    "best blocks that the one before found": "overlap",
    "seconds it cost": "seconds",
  }
  rows = [
    (
      f"version {swap['version']}",
      [_number(swap.get(key)) for key in columns.values()],
    )
    for swap in swaps
  ]
  unit = f"{run.name}/index/swaps.jsonl"
  table = {"name": "Index", "unit": unit, "columns": list(columns)}
  return {**table, "rows": rows} if rows else None


def _command(run: pathlib.Path) -> str:
  """The command whose run this is; its config lies beside the metrics."""
  path = run / "config.json"
  config = run_config.read(run) if path.is_file() else {}
  kinds = {
    "reader_beam_size": "finetune_qa",
    "evidence": "pretrain",
    "mask_rate": "train_ict",
  }
  name = next((kinds[key] for key in kinds if key in config), None)
  return f"python -m experiments.{name} --workdir={run}" if name else ""


def _summary_command(workdir: pathlib.Path) -> str:
  """The command whose summary.json this is."""
  path = workdir / "config.json"
  is_swap = path.is_file() and "cloze" in run_config.read(workdir)
  name = "swap_demo" if is_swap else "demo"
  return f"python -m experiments.{name} --workdir={workdir}"


def _tables(path: pathlib.Path) -> list[dict]:
  """The summary as tables: those of each group, one for the single values."""
  if not path.is_file():
    return []
  tables, single = [], {}
  for name, value in files.read_json(path).items():
    if isinstance(value, dict):
      tables += _of_group(name, value)
    elif name == "examples":
      rows = {cells.pop("question"): cells for cells in value}
      tables.append(_table(name, rows))
    else:
      single[f"{name} ({_UNITS[name]})" if name in _UNITS else name] = value
  return tables + ([_table("the whole", single)] if single else [])


def _of_group(name: str, group: Mapping) -> list[dict]:
  """One table, or one for each row where the rows have rows of their own."""
  parts = [
    part
    for row in group.values()
    for part in (row.values() if isinstance(row, dict) else [row])
  ]
  if not parts or not all(isinstance(part, dict) for part in parts):
    return [_table(name, group)]
  unit = _UNITS.get(name, "")
  return [_table(row, of) | {"unit": unit} for row, of in group.items()]


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
  count = min(len(rows), _SAMPLES)
  return {
    "source": str(path.relative_to(workdir)),
    "count": len(rows),
    "right": sum(row.exact_match for row in rows),
    "rows": [rows[i * len(rows) // count] for i in range(count)],
  }
