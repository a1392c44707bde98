"""Questions with their answers: JSONL or TSV files, checked line by line."""

import ast
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from realm_jax import files, types
from realm_jax.config import InputError
from realm_jax.data import features, tfds_source
from realm_jax.data.articles import read_jsonl, text_field
from realm_jax.data.tokenizer import Tokenizer


class Question(NamedTuple):
  """A question with its answers.

  Attributes:
    id: its own among those of a file.
    question: the text.
    answers: texts or patterns, any of which is right.
    article_id: of its gold article, "" where unknown.
    regex: whether the answers are regular expressions.
    spans: what these match in the blocks, if that was looked up (see
      answer_patterns); training looks for them.
  """

  id: str
  question: str
  answers: list[str]
  article_id: str = ""
  regex: bool = False
  spans: tuple[str, ...] = ()

  def texts(self) -> Sequence[str]:
    """What stands in a block that holds an answer."""
    return self.spans if self.regex else self.answers


def read_qa(path: str | os.PathLike, regex: bool = False) -> list[Question]:
  """Reads a QA file.

  JSONL (also .gz, also a folder): {"question", "answer": [...]} with optional
  "id", "article_id" and "regex". TSV: question<TAB>['answer', ...].
  "tfds:NAME:SPLIT": a data set of the same fields, such as
  natural_questions_open, web_questions, trivia_qa/unfiltered.nocontext, squad.
  The last two keep their answers as {"value", "aliases"} and as [{"text"}],
  which a JSONL file may do as well.

  Args:
    path: what to read.
    regex: whether answers are regular expressions where a line doesn't say.

  Raises:
    InputError: no such file, a bad line, an id twice, no question at all.
  """
  if str(path).startswith(tfds_source.PREFIX):
    records = tfds_source.read(str(path))
  elif str(path).endswith(".tsv"):
    records = _read_tsv(pathlib.Path(path).expanduser())
  else:
    records = read_jsonl(path)
  places: dict[str, str] = {}
  questions = []
  for number, (place, record) in enumerate(records):
    questions.append(_question(str(number), record, place, regex))
    other = places.setdefault(questions[-1].id, place)
    if other != place:
      raise InputError(
        f'{place}: the id "{questions[-1].id}" was used at {other}: give every'
        " question its own, or none"
      )
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
      if q.regex:
        line |= {"regex": True, "spans": q.spans}
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
      tokenizer.encode_batch([a for q in questions for a in q.texts()])
    )
    self._batch = features.qa_batch(
      ids,
      [[next(flat) for _ in q.texts()] for q in questions],
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


def _question(
  number: str, record: dict[str, Any], place: str, regex: bool
) -> Question:
  named = record.get("id", record.get("question_id", number))
  return Question(
    str(named),
    text_field(record, "question", place),
    _answers(record, place),
    str(record.get("article_id", "")),
    bool(record.get("regex", regex)),
    tuple(record.get("spans", ())),
  )


def _read_tsv(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
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
    yield place, {"question": question, "answer": answers}


def _answers(record: dict[str, Any], place: str) -> list[str]:
  """The texts of "answer" or "answers", in any of the forms of read_qa."""
  given = record.get("answer", record.get("answers"))
  if given is None:
    raise InputError(
      f'{place}: lacks "answer"; found {", ".join(record)}; expected a list'
      " of texts"
    )
  listed = given
  if isinstance(given, dict):
    value = [given["value"]] if "value" in given else []
    listed = given.get("text", [*value, *given.get("aliases", ())])
  if isinstance(listed, list):
    listed = [a.get("text") if isinstance(a, dict) else a for a in listed]
  is_list = isinstance(listed, list) and listed
  if not is_list or not all(isinstance(a, str) for a in listed):
    raise InputError(
      f'{place}: "answer" must be a list of one or more texts, got'
      f" {str(given)[:40]}"
    )
  return list(dict.fromkeys(listed))
