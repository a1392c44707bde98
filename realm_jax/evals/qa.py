"""Open-domain QA scored, question by question.

A question is judged by what was answered (exact match, F1) and by what was
found (recall by gold article and by has-answer). Values are kept per question,
so that any two ways to answer (see baselines.py) can be compared in pairs.

Two figures are by wordpieces, as the original counts them while it trains:
index_match (its "exact_match"; the predicted span is one of the places where an
answer's wordpieces stand in the blocks read) and reader_oracle (there is such a
place). Beside exact_match, which compares texts, the first tells what the
normalisation of answers adds, the second what a perfect reader would reach.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from realm_jax import progress, sharding
from realm_jax.data import features, qa
from realm_jax.data.blocks import BlockStore
from realm_jax.data.tokenizer import Tokenizer
from realm_jax.evals import exact_match, retrieval
from realm_jax.evals.exact_match import Prediction, mean_and_se
from realm_jax.evals.retrieval import Found
from realm_jax.retrieval import evidence
from realm_jax.retrieval.block_tokens import Tokens
from realm_jax.retrieval.open_qa import OpenQa
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.types import Array, QaBatch

_TEXTS_HELD = 1 << 16  # texts of blocks, where answers are looked for


@dataclasses.dataclass(frozen=True)
class QaScores:
  """Scores of B questions, in their order.

  Attributes:
    predictions: answers with evidence.
    columns: {metric: [B] values, NaN = not judged}.
    found: the ranking behind them, None if there is none.
  """

  predictions: list[Prediction]
  columns: dict[str, np.ndarray]
  found: Found | None = None

  def summary(self) -> Iterator[tuple[str, float]]:
    """Means and standard errors as (name, value) pairs."""
    for name, values in self.columns.items():
      mean, error = mean_and_se(values)
      if not np.isnan(mean):  # nothing was judged
        yield name, mean
        yield f"{name}_se", error


def evaluate_reader(
  open_qa: OpenQa,
  params,
  block_emb: Array,
  tokens: Tokens,
  questions: Sequence[qa.Question],
  store: BlockStore,
  tokenizer: Tokenizer,
  *,
  query_len: int,
  batch_size: int = 32,
  max_answers: int = 8,
  max_answer_len: int = 10,
  text_of: Sequence[int] | None = None,
) -> QaScores:
  """Reads the best blocks of each question and scores the answers.

  Exact match and F1, and by wordpieces reader_oracle and index_match: NaN where
  the answers are patterns, unless it's known what these match.

  Args:
    open_qa: retriever and reader.
    params: {"embedder", "reader"}.
    block_emb: [N, P] the index to search.
    tokens: of all blocks.
    questions: B of them.
    store: the blocks' text.
    tokenizer: the one the blocks were made with.
    query_len: Q.
    batch_size: questions at a time.
    max_answers, max_answer_len: A and W of the wordpiece scores.
    text_of: see baselines.shuffle_blocks.
  """
  examples = qa.QaExamples(
    list(questions),
    tokenizer,
    query_len=query_len,
    max_answers=max_answers,
    max_answer_len=max_answer_len,
  )
  answers, oracle, match = [], [], []
  for rows in chunks(len(questions), batch_size):
    batch = jax.device_put(examples.rows(rows, np.zeros((batch_size, 3))))
    out = _score_batch(open_qa, params, block_emb, tokens, batch)
    reading, *by_wordpieces = sharding.fetch(out)
    real = rows >= 0
    reading = jax.tree.map(lambda x, real=real: x[real], reading)
    answers += evidence.read_answers(reading, store, tokenizer, text_of)
    oracle.append(by_wordpieces[0][real])
    match.append(by_wordpieces[1][real])
  scores = score_answers(questions, answers)
  judged = np.array([bool(q.texts()) for q in questions])
  for name, values in (("reader_oracle", oracle), ("index_match", match)):
    scores.columns[name] = np.where(judged, np.concatenate(values), np.nan)
  return scores


def score_run(
  run: Any,
  questions: Sequence[qa.Question],
  text_of: Sequence[int] | None = None,
) -> QaScores:
  """As evaluate_reader, of what a run reads by its own index.

  Args:
    run: serve.run.Run with a reader.
  """
  return evaluate_reader(
    run.open_qa,
    run.params,
    run.block_emb,
    run.tokens,
    questions,
    run.store,
    run.tokenizer,
    query_len=run.config["query_len"],
    text_of=text_of,
  )


@functools.partial(jax.jit, static_argnums=0)
def _score_batch(open_qa, params, block_emb, tokens, batch: QaBatch):
  """Reading of a batch; whether a span read, the best span is gold [B], [B]."""
  beam = open_qa.reader.config.reader_beam_size
  output = open_qa(params, block_emb, tokens, batch.question, beam)
  labels = open_qa.labels(tokens, batch, output)
  rows = output.block.shape[0]
  gold = labels.gold_span.reshape(rows, -1)  # [B, K * S]
  best = output.span_logits.reshape(rows, -1).argmax(-1)
  right = jnp.take_along_axis(gold, best[:, None], axis=1)[:, 0]
  return evidence.reading(output), gold.any(-1), right


def score_answers(
  questions: Sequence[qa.Question],
  answers: Iterable[evidence.Answer],
) -> QaScores:
  """Exact match and F1 of answers; a pattern has no F1 (NaN)."""
  predictions = [
    Prediction(
      id=q.id,
      question=q.question,
      prediction=answer.text,
      answer=list(q.answers),
      exact_match=exact_match.is_right(answer.text, q),
      f1=0.0 if q.regex else exact_match.f1(answer.text, q.answers),
      score=answer.score if math.isfinite(answer.score) else None,
      evidence=[dataclasses.asdict(block) for block in answer.evidence],
    )
    for q, answer in zip(questions, answers, strict=True)
  ]
  pairs = list(zip(questions, predictions, strict=True))
  return QaScores(
    predictions,
    {
      "exact_match": np.array([p.exact_match for p in predictions], float),
      "f1": np.array([np.nan if q.regex else p.f1 for q, p in pairs], float),
    },
  )


def score_found(
  found: np.ndarray,
  questions: Sequence[qa.Question],
  store: BlockStore,
  cutoffs: Sequence[int] = retrieval.CUTOFFS,
) -> dict[str, np.ndarray]:
  """Recall of a ranking [B, k]: recall_1, ..., answer_recall_1, ... [B] each.

  Gold is any block of the question's article; a question that names none isn't
  judged (NaN).
  """
  gold = [
    store.block_of_article(q.article_id) if q.article_id else None
    for q in questions
  ]
  by_gold = retrieval.gold_hits(found, gold, cutoffs)
  text = functools.lru_cache(_TEXTS_HELD)(store.text)
  by_answer = retrieval.answer_hits(found, questions, text, cutoffs=cutoffs)
  return {f"recall_{k}": hits for k, hits in by_gold.items()} | {
    f"answer_recall_{k}": hits for k, hits in by_answer.items()
  }


def find_blocks(
  retriever: Retrieval,
  params,
  block_emb: Array,
  questions: Sequence[str],
  tokenizer: Tokenizer,
  *,
  query_len: int,
  batch_size: int = 64,
  num_found: int = max(retrieval.CUTOFFS),
) -> Found:
  """The search alone: the num_found best blocks for each question."""
  ids = tokenizer.encode_batch(list(questions))
  found = []
  for rows in chunks(len(ids), batch_size):
    batch = [ids[i] if i >= 0 else [] for i in rows]
    inputs = jax.device_put(features.query_inputs(batch, query_len, tokenizer))
    scores, best = sharding.fetch(
      _search(retriever, params, block_emb, inputs, num_found)
    )
    found.append((best[rows >= 0], scores[rows >= 0]))
  return Found(*map(np.concatenate, zip(*found, strict=True)))


def recall_of_run(
  run: Any,
  questions: Sequence[qa.Question],
  cutoffs: Sequence[int] = retrieval.CUTOFFS,
) -> dict[str, np.ndarray]:
  """What a run's retriever finds in its own index, as `score_found` tells it.

  Args:
    run: serve.run.Run.
  """
  found = find_by_run(run, questions, max(cutoffs))
  return score_found(found.ids, questions, run.store, cutoffs)


def find_by_run(
  run: Any, questions: Sequence[qa.Question], num_found: int
) -> Found:
  """As find_blocks, in a run's own index.

  Args:
    run: serve.run.Run.
  """
  return find_blocks(
    run.retrieval,
    run.params,
    run.block_emb,
    [q.question for q in questions],
    run.tokenizer,
    query_len=run.config["query_len"],
    num_found=num_found,
  )


@functools.partial(jax.jit, static_argnames=("retriever", "num_found"))
def _search(retriever, params, block_emb, inputs, num_found):
  query_emb = retriever.embed_query(params, inputs)
  return retriever.search(block_emb, query_emb, num_found)


def make_evaluator(
  open_qa: OpenQa,
  tokens: Tokens,
  questions: Sequence[qa.Question],
  store: BlockStore,
  tokenizer: Tokenizer,
  **options,
) -> Callable:
  """The loop's evaluator: fn(state, index) -> (name, value) pairs.

  Args:
    open_qa: retriever and reader.
    tokens: of all blocks, where the index lies.
    questions: to be answered.
    store, tokenizer: see evaluate_reader, which also takes the options.
  """
  texts = [q.question for q in questions]
  query_len = options["query_len"]

  def evaluate(state, index):
    scores = evaluate_reader(
      open_qa,
      state.params,
      index.block_emb,
      tokens,
      questions,
      store,
      tokenizer,
      **options,
    )
    found = find_blocks(
      open_qa.retrieval,
      state.params,
      index.block_emb,
      texts,
      tokenizer,
      query_len=query_len,
    )
    scores.columns.update(score_found(found.ids, questions, store))
    return list(scores.summary())

  return evaluate


def chunks(count: int, size: int) -> Iterator[np.ndarray]:
  """0..count-1 in rows of `size`, the last filled up with -1."""
  with progress.Progress(count, "question") as shown:
    for first in range(0, count, size):
      rows = np.arange(first, first + size)
      yield np.where(rows < count, rows, -1)
      shown.update(min(first + size, count))
