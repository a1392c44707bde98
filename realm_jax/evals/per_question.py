"""Every score of every question, one question a line, for paired comparison."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data.articles import read_jsonl
from realm_jax.data.qa import Question

FOLDER = "per_question"  # of a run

Scores = dict[str, np.ndarray]


def write_scores(
  path: str | os.PathLike,
  questions: Sequence[Question],
  columns: Mapping[str, np.ndarray],
) -> None:
  """Publishes {"id", "question", "scores": {metric: value or null}} lines."""
  with (
    files.atomic_publish(path) as tmp,
    tmp.open("w", encoding="utf-8") as out,
  ):
    for row, question in enumerate(questions):
      scores = {name: float(values[row]) for name, values in columns.items()}
      line = {
        "id": question.id,
        "question": question.question,
        "scores": {k: None if math.isnan(v) else v for k, v in scores.items()},
      }
      out.write(json.dumps(line, ensure_ascii=False) + "\n")


def find_scores(run: str | os.PathLike, name: str) -> pathlib.Path:
  """The file of scores that `run` is, or that the directory of a run has.

  Args:
    run: a file, a run's directory, or a demo's.
    name: of the file in a run's, without ".jsonl"; "" for the only one of
      the run itself (FILE.realm).

  Raises:
    InputError: none, or several, which are named.
  """
  run = pathlib.Path(run).expanduser()
  if run.is_file():
    return run
  pattern = f"{FOLDER}/{name or '*.realm'}.jsonl"
  found = sorted([*run.glob(pattern), *run.glob(f"*/{pattern}")])
  if len(found) == 1:
    return found[0]
  if found:
    names = ", ".join(str(path.relative_to(run)) for path in found)
    raise InputError(
      f"{run}: has {names}: name one as --config.name=NAME, or give its path"
    )
  raise InputError(
    f"{run}: no {pattern} in it: run experiments.evaluate on it first"
  )


def read_together(paths: Sequence[pathlib.Path]) -> list[Scores]:
  """Files of scores, question by question in the order of the first.

  Returns:
    {metric: [B] values, NaN = not judged} of each.

  Raises:
    InputError: a line that isn't one of scores, files about different
      questions, or one without a metric of the first.
  """
  every = [_read(path) for path in paths]
  for path, lines in zip(paths[1:], every[1:], strict=True):
    _check_same(paths[0], every[0], path, lines)
    _check_same(path, lines, paths[0], every[0])
  columns = [_columns(lines, list(every[0])) for lines in every]
  for path, theirs in zip(paths, columns, strict=True):
    if not columns[0].keys() & theirs.keys():
      raise InputError(f"{paths[0]} and {path} have no metric in common")
  return columns


def _check_same(path, lines, other_path, other) -> None:
  for key, (question, _) in lines.items():
    if key not in other or other[key][0] != question:
      raise InputError(
        f'{path} has the question "{key}" ({question[:60]!r}), which'
        f" {other_path} lacks: evaluate the runs on the same file of questions"
      )


def _read(path: pathlib.Path) -> dict[str, tuple[str, dict[str, float]]]:
  lines = {}
  for place, record in read_jsonl(path):
    try:
      scores = {
        name: math.nan if value is None else float(value)
        for name, value in record["scores"].items()
      }
      key, question = record["id"], record["question"]
    except (KeyError, TypeError, ValueError, AttributeError) as e:
      raise InputError(
        f"{place}: no line of scores ({e!r}): wanted a file of {FOLDER}/, as"
        " experiments.evaluate writes them"
      ) from e
    if key in lines:
      raise InputError(f'{place}: the question "{key}" again')
    lines[key] = question, scores
  if not lines:
    raise InputError(f"{path}: holds no question")
  return lines


def _columns(lines, order) -> Scores:
  names = dict.fromkeys(n for key in order for n in lines[key][1])
  return {
    name: np.array([lines[key][1].get(name, math.nan) for key in order])
    for name in names
  }
