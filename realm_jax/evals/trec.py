"""Rankings as TREC run files, to and from other systems.

A line is `question Q0 block rank score tag`. A block is named by its row in the
index, a question by its id, in percent-encoding where that has white space or
is not ASCII.
"""

import math
import os
import pathlib
import urllib.parse
from collections.abc import Iterator, Sequence

import numpy as np

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data.qa import Question
from realm_jax.evals.retrieval import Found

_FIELDS = 6


def write_run(
  path: str | os.PathLike,
  questions: Sequence[Question],
  found: Found,
  *,
  tag: str,
  depth: int,
) -> None:
  """Publishes a run file.

  Readers of such files sort by score; of equal scores the later is written as
  the next smaller float32, which trec_eval reads, so that they keep the order.

  Args:
    path: of the file.
    questions: B of them.
    found: blocks [B, k] of each.
    tag: of the system, without white space.
    depth: blocks written of each question.
  """
  with (
    files.atomic_publish(path) as tmp,
    tmp.open("w", encoding="utf-8") as out,
  ):
    for question, ids, scores in zip(questions, *found, strict=True):
      name, last = _name(question.id), np.float32(np.inf)
      narrow = scores[:depth].astype(np.float32)
      for rank, (block, score) in enumerate(
        zip(ids[:depth].tolist(), narrow, strict=True), 1
      ):
        if block < 0:
          break
        last = min(score, np.nextafter(last, np.float32(-np.inf)))
        out.write(f"{name} Q0 {block} {rank} {last!s} {tag}\n")


def read_run(
  path: str | os.PathLike, questions: Sequence[Question], num_blocks: int
) -> Found:
  """Reads anybody's run file, as trec_eval does.

  Blocks are sorted by score, and of equal scores by name, backwards; the rank
  is not looked at.

  Args:
    path: of the file.
    questions: those that it may be about; one that it lacks has no block.
    num_blocks: of the index.

  Raises:
    InputError: no such file; a line (named) that is none of a run file, or is
      about another question, about no block of this index or about one twice.
  """
  rows: list[dict[str, float]] = [{} for _ in questions]
  numbers = {q.id: row for row, q in enumerate(questions)}
  numbers |= {_name(q.id): row for row, q in enumerate(questions)}
  for place, (name, _, block, _, score, _) in _lines(pathlib.Path(path)):
    row = numbers.get(name)
    if row is None:
      raise InputError(
        f'{place}: there is no question of the id "{name}": give the QA file'
        " that the run is about"
      )
    if not (block.isascii() and block.isdigit() and int(block) < num_blocks):
      raise InputError(
        f'{place}: "{block}" is no block of this index: wanted a row, 0 to'
        f" {num_blocks - 1}"
      )
    if block in rows[row]:
      raise InputError(f'{place}: block {block} of question "{name}" again')
    rows[row][block] = _number(score, place)
  return _to_found(rows)


def _to_found(rows: list[dict[str, float]]) -> Found:
  width = max((len(row) for row in rows), default=0)
  found = Found(
    np.full((len(rows), width), -1, np.int64),
    np.full((len(rows), width), -np.inf),
  )
  for i, row in enumerate(rows):
    ranked = sorted(((s, b) for b, s in row.items()), reverse=True)
    found.ids[i, : len(row)] = [int(block) for _, block in ranked]
    found.scores[i, : len(row)] = [score for score, _ in ranked]
  return found


def _lines(path: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
  try:
    lines = path.expanduser().open(encoding="utf-8")
  except OSError as e:
    raise InputError(f"{path}: {e.strerror}: wanted a TREC run file") from e
  with lines:
    for number, line in enumerate(lines, 1):
      place, fields = f"{path}:{number}", line.split()
      if fields and len(fields) != _FIELDS:
        raise InputError(
          f"{place}: {len(fields)} fields: wanted `question Q0 block rank score"
          " tag`"
        )
      if fields:
        yield place, fields


def _number(text: str, place: str) -> float:
  try:
    score = float(text)
  except ValueError:
    score = math.nan
  if math.isnan(score):
    raise InputError(f'{place}: the score "{text}" is no number')
  return score


def _name(question_id: str) -> str:
  return urllib.parse.quote(question_id, safe="!$&'()*+,/:;=?@[]")
