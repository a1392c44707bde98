"""Questions with their answers: JSONL or TSV files, checked line by line."""

import ast
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from realm_jax import files, types
from realm_jax.config import InputError
from realm_jax.data import features, tfds_source
from realm_jax.data.articles import read_jsonl, text_field
from realm_jax.data.tokenizer import Tokenizer


class Question(NamedTuple):
  """A question; article_id names its gold article, "" where unknown."""

  id: str
  question: str
  answers: list[str]
  article_id: str = ""


def read_qa(path: str | os.PathLike) -> list[Question]:
  """Reads a QA file.

  JSONL (also .gz, also a folder): {"question", "answer": [...]} with optional
  "id" and "article_id". TSV: question<TAB>['answer', ...]. "tfds:NAME:SPLIT":
  a data set of the same fields, such as natural_questions_open.

  Raises:
    InputError: no such file, a bad line, no question at all.
  """
  if str(path).startswith(tfds_source.PREFIX):
    questions = list(_check(tfds_source.read(str(path))))
  elif str(path).endswith(".tsv"):
    questions = list(_read_tsv(pathlib.Path(path).expanduser()))
  else:
    questions = list(_check(read_jsonl(path)))
  if not questions:
    raise InputError(f"{path}: holds no question")
  return questions


def write_qa(path: str | os.PathLike, questions: Iterable[Question]) -> None:
  """Publishes questions as JSONL."""
  with files.atomic_publish(path) as tmp, open(tmp, "w") as out:
    for q in questions:
      line: dict[str, Any] = {
        "id": q.id,
        "question": q.question,
        "answer": q.answers,
      }
      if q.article_id:
        line["article_id"] = q.article_id
      out.write(json.dumps(line, ensure_ascii=False) + "\n")


class QaExamples:
  """Questions tokenised once, read a batch at a time."""

  def __init__(
    self,
    questions: list[Question],
    tokenizer: Tokenizer,
    *,
    query_len: int,
    max_answers: int,
    max_answer_len: int,
  ):
    ids = tokenizer.encode_batch([q.question for q in questions])
    flat = iter(
      tokenizer.encode_batch([a for q in questions for a in q.answers])
    )
    self._batch = features.qa_batch(
      ids,
      [[next(flat) for _ in q.answers] for q in questions],
      query_len=query_len,
      max_answers=max_answers,
      max_answer_len=max_answer_len,
      tokenizer=tokenizer,
    )

  def __len__(self) -> int:
    return len(self._batch.example_ids)

  def rows(self, positions: np.ndarray, uniform: np.ndarray) -> types.QaBatch:
    """Some questions; a negative position makes a row without answers."""
    del uniform  # nothing is drawn
    real = positions >= 0
    at = np.maximum(positions, 0)
    everything = self._batch
    question = everything.question
    return types.QaBatch(
      question=types.Inputs(
        question.input_ids[at],
        question.attention_mask[at],
        question.token_type_ids[at],
      ),
      answer_ids=np.where(real[:, None, None], everything.answer_ids[at], -1),
      answer_lens=everything.answer_lens[at] * real[:, None].astype(np.int32),
      example_ids=np.where(real, at, -1),
    )


def _check(
  records: Iterable[tuple[str, dict[str, Any]]],
) -> Iterator[Question]:
  for number, (place, record) in enumerate(records):
    question = text_field(record, "question", place)
    if "answer" not in record:
      raise InputError(
        f'{place}: lacks "answer"; found {", ".join(record)}; expected a list'
        " of texts"
      )
    yield Question(
      str(record.get("id", number)),
      question,
      _answers(record["answer"], place),
      str(record.get("article_id", "")),
    )


def _read_tsv(path: pathlib.Path) -> Iterator[Question]:
  if not path.is_file():
    raise InputError(f"{path}: no such file")
  lines = path.read_text(encoding="utf-8").splitlines()
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    place = f"{path}:{number}"
    question, tab, listed = line.partition("\t")
    try:
      answers = ast.literal_eval(listed.strip())
    except (ValueError, SyntaxError):
      tab = ""
    if not tab:
      raise InputError(
        f"{place}: expected question<TAB>['answer', ...], got {line[:40]!r}"
      )
    yield Question(str(number - 1), question, _answers(answers, place))


def _answers(answers: Any, place: str) -> list[str]:
  is_list = isinstance(answers, list) and answers
  if not is_list or not all(isinstance(a, str) for a in answers):
    raise InputError(
      f'{place}: "answer" must be a list of one or more texts, got'
      f" {str(answers)[:40]}"
    )
  return answers
