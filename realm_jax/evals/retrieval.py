"""Recall at k: did the search find a block that holds the evidence?

Two questions are asked of the same ranking. By gold: is a block of the
question's gold article (or the gold block itself) among the first k? By
has-answer: does the raw text of one of the first k blocks contain an answer?
Hits are kept per question, so that two runs can be compared in pairs.
`ir_measures` counts them (its Success@k), as the TREC tools would.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import ir_measures
import numpy as np

from realm_jax.data import answer_patterns
from realm_jax.data.qa import Question
from realm_jax.evals.exact_match import mean_and_se

CUTOFFS = (1, 5, 20)  # of what is measured while a run trains
_ALL_CUTOFFS = (*CUTOFFS, 50, 100, 500, 1000, 5000)


class Found(NamedTuple):
  """What a search found: ids [B, k], best first, -1 = nothing there; scores
  [B, k]."""

  ids: np.ndarray
  scores: np.ndarray


def all_cutoffs(num_blocks: int) -> tuple[int, ...]:
  """The paper's and more, but for those that all blocks would be among."""
  return tuple(k for k in _ALL_CUTOFFS if k in CUTOFFS or k < num_blocks)


def has_answer(text: str, answers: Sequence[str], regex: bool = False) -> bool:
  """Whether a block's raw text contains one of the answers.

  The one definition here is the original's retriever label: a case-sensitive
  substring of the raw text, nothing normalised. Regular expressions
  (CuratedTREC) are searched for anywhere in the text, in any case; one that
  doesn't compile is found nowhere, and so is an empty answer.
  """
  if not regex:
    return any(answer in text for answer in answers if answer.strip())
  patterns = map(answer_patterns.compiled, answers)
  return any(p.search(text) is not None for p in patterns if p)


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
  qrels = {
    name: {str(block): 1 for block in blocks}
    for name, blocks in zip(names, gold, strict=True)
    if blocks
  }
  ranking = {
    name: _up_to_gold(blocks, qrels[name])
    for name, blocks in zip(names, np.asarray(retrieved), strict=True)
    if name in qrels
  }
  unknown = np.array([blocks is None for blocks in gold], bool)
  hits = {k: np.where(unknown, np.nan, 0.0) for k in cutoffs}
  measures = {ir_measures.Success @ k: k for k in cutoffs}
  for metric in ir_measures.iter_calc(list(measures), qrels, ranking):
    hits[measures[metric.measure]][int(metric.query_id)] = metric.value
  return hits


def _up_to_gold(blocks: np.ndarray, gold: dict[str, int]) -> dict[str, float]:
  """{block: score} of a ranking's start: what follows the first gold block
  changes no success."""
  scores = {}
  for rank, block in enumerate(blocks[blocks >= 0].tolist()):
    scores[str(block)] = -float(rank)
    if str(block) in gold:
      break
  return scores


def answer_hits(
  retrieved: np.ndarray,
  questions: Sequence[Question],
  block_text: Callable[[int], str],
  *,
  cutoffs: Sequence[int] = CUTOFFS,
) -> dict[int, np.ndarray]:
  """Which questions have a block with an answer in it among the first k.

  Args:
    retrieved: [B, k] block ids, best first; negative = nothing there.
    questions: B, with the answers that count.
    block_text: raw text of a block id.
    cutoffs: the k asked for.

  Returns:
    {k: [B] 1 or 0}.
  """
  first = []
  for blocks, q in zip(np.asarray(retrieved).tolist(), questions, strict=True):
    holders = (
      b
      for b in blocks
      if b >= 0 and has_answer(block_text(b), q.answers, q.regex)
    )
    first.append({b for b in (next(holders, None),) if b is not None})
  return gold_hits(retrieved, first, cutoffs)


def recall(hits: dict[int, np.ndarray]) -> dict[str, tuple[float, float]]:
  """Mean and standard error at each k, keyed by str(k) as in summary.json."""
  return {str(k): mean_and_se(values) for k, values in hits.items()}
