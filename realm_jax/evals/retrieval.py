"""Recall at k: did the search find a block that holds the evidence?

Two questions are asked of the same ranking. By gold: is a block of the
question's gold article (or the gold block itself) among the first k? By
has-answer: does the raw text of one of the first k blocks contain an answer?
Hits are kept per question, so that two runs can be compared in pairs.
`ir_measures` counts them (its Success@k), as the TREC tools would.
"""

import re
from collections.abc import Callable, Collection, Sequence

import ir_measures
import numpy as np

from realm_jax.evals.exact_match import mean_and_se

CUTOFFS = (1, 5, 20)
_REGEX_FLAGS = re.IGNORECASE | re.UNICODE | re.MULTILINE


def has_answer(text: str, answers: Sequence[str], regex: bool = False) -> bool:
  """Whether a block's raw text contains one of the answers.

  The one definition here is the original's retriever label: a case-sensitive
  substring of the raw text, nothing normalised. Regular expressions
  (CuratedTREC) are searched for anywhere in the text, in any case; one that
  doesn't compile is found nowhere.
  """
  if not regex:
    return any(answer in text for answer in answers)
  return any(_found(pattern, text) for pattern in answers)


def gold_hits(
  retrieved: np.ndarray,
  gold: Sequence[Collection[int] | None],
  cutoffs: Sequence[int] = CUTOFFS,
) -> dict[int, np.ndarray]:
  """Which questions have a gold block among the first k.

  Args:
    retrieved: [B, k] block ids, best first; negative = nothing there.
    gold: of each question the block ids that count; None = not known.
    cutoffs: the k asked for; one larger than the ranking takes all of it.

  Returns:
    {k: [B] 1, 0, or NaN where gold isn't known}.
  """
  names = [str(row) for row in range(len(retrieved))]
  qrels = [
    ir_measures.Qrel(name, str(block), 1)
    for name, blocks in zip(names, gold, strict=True)
    for block in blocks or ()
  ]
  ranking = [
    ir_measures.ScoredDoc(name, str(block), -float(rank))
    for name, blocks in zip(names, np.asarray(retrieved).tolist(), strict=True)
    for rank, block in enumerate(blocks)
    if block >= 0
  ]
  unknown = np.array([blocks is None for blocks in gold], bool)
  hits = {k: np.where(unknown, np.nan, 0.0) for k in cutoffs}
  measures = {ir_measures.Success @ k: k for k in cutoffs}
  for metric in ir_measures.iter_calc(list(measures), qrels, ranking):
    hits[measures[metric.measure]][int(metric.query_id)] = metric.value
  return hits


def answer_hits(
  retrieved: np.ndarray,
  answers: Sequence[Sequence[str]],
  block_text: Callable[[int], str],
  *,
  regex: bool = False,
  cutoffs: Sequence[int] = CUTOFFS,
) -> dict[int, np.ndarray]:
  """Which questions have a block with an answer in it among the first k.

  Args:
    retrieved: [B, k] block ids, best first; negative = nothing there.
    answers: of each question the answers that count.
    block_text: raw text of a block id.
    regex: whether the answers are regular expressions.
    cutoffs: the k asked for.

  Returns:
    {k: [B] 1 or 0}.
  """
  holders = [
    {b for b in blocks if b >= 0 and has_answer(block_text(b), wanted, regex)}
    for blocks, wanted in zip(
      np.asarray(retrieved).tolist(), answers, strict=True
    )
  ]
  return gold_hits(retrieved, holders, cutoffs)


def recall(hits: dict[int, np.ndarray]) -> dict[str, tuple[float, float]]:
  """Mean and standard error at each k, keyed by str(k) as in summary.json."""
  return {str(k): mean_and_se(values) for k, values in hits.items()}


def _found(pattern: str, text: str) -> bool:
  try:
    return re.search(pattern, text, _REGEX_FLAGS) is not None
  except re.error:
    return False
