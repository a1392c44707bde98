"""Which questions of a file are used, and what of them had to go.

The paper's choices (section 4.1; ORQA, section 5): answers of a few words, and
for development the tenth of the training questions that a hash picks.
"""

import collections
from collections.abc import Iterable
from typing import NamedTuple

import farmhash

from realm_jax.data import answer_patterns
from realm_jax.data.qa import Question

_BUCKETS = 100_000  # of TensorFlow's to_hash_bucket_fast, as ORQA called it
_DEV_SHARE = 10  # one bucket in ten


class Chosen(NamedTuple):
  """Questions, and {what: how many} of all that was dropped to get them."""

  questions: list[Question]
  dropped: dict[str, int]


def is_dev(question: str) -> bool:
  """Whether the paper held a training question out for development.

  FarmHash64(question) mod 100,000 mod 10 == 0 (ORQA's create_data_splits).
  """
  return farmhash.Fingerprint64(question) % _BUCKETS % _DEV_SHARE == 0


def choose(questions: Iterable[Question], max_answer_words: int = 0) -> Chosen:
  """Drops what can't be used, and joins questions of the same text.

  Args:
    questions: as a file has them.
    max_answer_words: longer answers are dropped, words being what white space
      parts; 0: of any length.
  """
  dropped = collections.Counter()
  kept: dict[str, Question] = {}
  for q in questions:
    answers = []
    for answer in q.answers:
      fault = _fault(answer, q.regex, max_answer_words)
      if fault:
        dropped[fault] += 1
      else:
        answers.append(answer)
    if not answers:
      dropped["questions without an answer left"] += 1
      continue
    if first := kept.get(q.question):
      dropped["questions that repeat another"] += 1
      answers = list(dict.fromkeys([*first.answers, *answers]))
    kept[q.question] = (first or q)._replace(answers=answers)
  return Chosen(list(kept.values()), dict(dropped))


def describe(dropped: dict[str, int]) -> str:
  """What was dropped, in one line."""
  return ", ".join(f"{count} {what}" for what, count in dropped.items())


def _fault(answer: str, regex: bool, max_words: int) -> str:
  """Why an answer can't be used, "" if it can."""
  if not answer.strip():
    return "empty answers"
  if regex and answer_patterns.compiled(answer) is None:
    return "invalid regular expressions"
  if max_words and len(answer.split()) > max_words:
    return f"answers of more than {max_words} words"
  return ""
