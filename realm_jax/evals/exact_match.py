"""Answers as strings: is a prediction right, and how sure is the mean?

The normalisation is the official one of open-domain QA (as in
the SQuAD and ORQA scorers): two strings that differ only in case, ASCII
punctuation, English articles or white space are the same answer. Accents stay,
only decomposed. Predictions go to and come from JSONL, one question a line.
"""

import dataclasses
import json
import os
import pathlib
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data import answer_patterns
from realm_jax.data.qa import Question

_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
  """NFD, lower case, no ASCII punctuation, no a/an/the, single spaces."""
  text = unicodedata.normalize("NFD", text).lower().translate(_PUNCTUATION)
  return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
  """Whether the prediction equals one of the answers, both normalised."""
  wanted = normalize_answer(prediction)
  return any(wanted == normalize_answer(answer) for answer in answers)


def regex_match(prediction: str, answers: Sequence[str]) -> bool:
  """Whether one of the patterns matches at the prediction's start.

  As CuratedTREC is scored: `re.match` on the raw prediction, and a pattern
  that isn't a regular expression never matches.
  """
  patterns = map(answer_patterns.compiled, answers)
  return any(p.match(prediction) is not None for p in patterns if p)


def f1(prediction: str, answers: Sequence[str]) -> float:
  """Best harmonic mean of word precision and recall over the answers."""
  return max((_f1(prediction, answer) for answer in answers), default=0.0)


def is_right(prediction: str, question: Question) -> bool:
  """Whether a question is answered, by plain strings or by patterns."""
  match = regex_match if question.regex else exact_match
  return match(prediction, question.answers)


def mean_and_se(values: Iterable[float]) -> tuple[float, float]:
  """Mean and its standard error; NaN stands for "not judged" and is left out.

  The standard error is the sample standard deviation over sqrt(n); of no value
  both are NaN, of one value the error is.
  """
  values = np.asarray(list(values), np.float64)
  values = values[~np.isnan(values)]
  if values.size == 0:
    return float("nan"), float("nan")
  if values.size == 1:
    return float(values[0]), float("nan")
  return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))


def paired_difference(
  after: Sequence[float], before: Sequence[float]
) -> tuple[float, float]:
  """Mean and standard error of `after - before`, example by example.

  Both hold the same examples in the same order; an example that one of them
  did not judge (NaN) is left out.
  """
  after, before = np.asarray(after, float), np.asarray(before, float)
  if after.shape != before.shape:
    raise InputError(
      f"a paired difference of {after.shape[0]} and {before.shape[0]}"
      " examples: score both runs on the same file"
    )
  return mean_and_se(after - before)


@dataclasses.dataclass(frozen=True)
class Prediction:
  """One scored question, a line of a predictions file.

  Attributes:
    id, question, answer: as the QA file has them; answer is a list.
    prediction: the answer given, "" for none.
    exact_match, f1: its scores.
    score: the model's own score of the prediction, None for none.
    evidence: {"block_id", "title", "text", "p"} of each block shown.
  """

  id: str
  question: str
  prediction: str
  answer: list[str]
  exact_match: bool
  f1: float = 0.0
  score: float | None = None
  evidence: list[dict] = dataclasses.field(default_factory=list)


def write_predictions(
  path: str | os.PathLike, predictions: Iterable[Prediction]
) -> None:
  """Publishes the predictions as JSONL, whole or not at all."""
  with files.atomic_publish(path) as tmp, tmp.open("w", encoding="utf-8") as f:
    for prediction in predictions:
      line = json.dumps(dataclasses.asdict(prediction), ensure_ascii=False)
      f.write(line + "\n")


def read_predictions(path: str | os.PathLike) -> list[Prediction]:
  """Reads what `write_predictions` wrote.

  Raises:
    InputError: no such file, or a line (named) that is no prediction.
  """
  path = pathlib.Path(path)
  try:
    lines = path.read_text(encoding="utf-8").split("\n")
  except OSError as e:
    raise InputError(f"{path}: {e.strerror}: wanted a predictions file") from e
  return [
    _parse(line, f"{path}:{number}")
    for number, line in enumerate(lines, 1)
    if line.strip()
  ]


def _parse(line: str, place: str) -> Prediction:
  try:
    return Prediction(**json.loads(line))
  except (ValueError, TypeError) as e:
    raise InputError(
      f"{place}: not a prediction ({e}): wanted one JSON object a line, as"
      " experiments.evaluate writes them"
    ) from e


def _f1(prediction: str, answer: str) -> float:
  ours = normalize_answer(prediction).split()
  theirs = normalize_answer(answer).split()
  if not ours or not theirs:  # "the" against "the" is an exact match
    return float(ours == theirs)
  common = sum((Counter(ours) & Counter(theirs)).values())
  if not common:
    return 0.0
  precision, recall = common / len(ours), common / len(theirs)
  return 2 * precision * recall / (precision + recall)
