"""Open-domain QA scored, question by question.

A question is judged by what was answered (exact match, F1) and by what was
found (recall by gold article and by has-answer). Values are kept per question,
so that any two ways to answer (see baselines.py) can be compared in pairs.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from realm_jax import progress, sharding
from realm_jax.data import features, qa
from realm_jax.data.blocks import BlockStore
from realm_jax.data.tokenizer import Tokenizer
from realm_jax.evals import exact_match, retrieval
from realm_jax.evals.exact_match import Prediction, mean_and_se
from realm_jax.retrieval import evidence
from realm_jax.retrieval.open_qa import OpenQa
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.types import Array, BlockTokens, QaBatch

NUM_FOUND = max(retrieval.CUTOFFS)


@dataclasses.dataclass(frozen=True)
class QaScores:
  """Scores of B questions, in their order.

  Attributes:
    predictions: answers with evidence.
    columns: {metric: [B] values, NaN = not judged}.
  """

  predictions: list[Prediction]
  columns: dict[str, np.ndarray]

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
  tokens: BlockTokens,
  questions: Sequence[qa.Question],
  store: BlockStore,
  tokenizer: Tokenizer,
  *,
  query_len: int,
  batch_size: int = 32,
  max_answers: int = 8,
  max_answer_len: int = 10,
  regex: bool = False,
  text_of: Sequence[int] | None = None,
) -> QaScores:
  """Retrieves, reads and scores.

  Beside exact match, F1 and recall there are reader_oracle (an answer's
  wordpieces are a span of the blocks read) and index_match (the predicted span
  is one), both by wordpieces as the original counts them. With regular
  expressions those two mean nothing and are left out.

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
    regex: whether the answers are regular expressions (CuratedTREC).
    text_of: see baselines.shuffle_blocks.
  """
  examples = qa.QaExamples(
    list(questions),
    tokenizer,
    query_len=query_len,
    max_answers=max_answers,
    max_answer_len=max_answer_len,
  )
  answers, found, oracle, match = [], [], [], []
  for rows in chunks(len(questions), batch_size):
    batch = jax.device_put(examples.rows(rows, np.zeros((batch_size, 3))))
    out = _score_batch(open_qa, params, block_emb, tokens, batch)
    reading, *by_wordpieces = sharding.fetch(out)
    real = rows >= 0
    reading = jax.tree.map(lambda x, real=real: x[real], reading)
    answers += evidence.read_answers(reading, store, tokenizer, text_of)
    found.append(reading.block_ids)
    oracle.append(by_wordpieces[0][real])
    match.append(by_wordpieces[1][real])
  scores = score_answers(questions, answers, regex)
  if not regex:
    scores.columns["reader_oracle"] = np.concatenate(oracle).astype(float)
    scores.columns["index_match"] = np.concatenate(match).astype(float)
  if text_of is None:
    recall = score_found(np.concatenate(found), questions, store, regex)
    scores.columns.update(recall)
  return scores


@functools.partial(jax.jit, static_argnums=0)
def _score_batch(open_qa, params, block_emb, tokens, batch: QaBatch):
  """Reading of a batch; whether a span read, the best span is gold [B], [B]."""
  output = open_qa(params, block_emb, tokens, batch.question, NUM_FOUND)
  labels = open_qa.labels(tokens, batch, output)
  rows = output.block.shape[0]
  gold = labels.gold_span.reshape(rows, -1)  # [B, K * S]
  best = output.span_logits.reshape(rows, -1).argmax(-1)
  right = jnp.take_along_axis(gold, best[:, None], axis=1)[:, 0]
  return evidence.reading(output), gold.any(-1), right


def score_answers(
  questions: Sequence[qa.Question],
  answers: Iterable[evidence.Answer],
  regex: bool = False,
) -> QaScores:
  """Exact match and F1 of answers; with regular expressions no F1."""
  is_right = exact_match.matcher(regex)
  predictions = [
    Prediction(
      id=q.id,
      question=q.question,
      prediction=answer.text,
      answer=list(q.answers),
      exact_match=is_right(answer.text, q.answers),
      f1=0.0 if regex else exact_match.f1(answer.text, q.answers),
      score=answer.score if math.isfinite(answer.score) else None,
      evidence=[dataclasses.asdict(block) for block in answer.evidence],
    )
    for q, answer in zip(questions, answers, strict=True)
  ]
  columns = {
    "exact_match": np.array([p.exact_match for p in predictions], float)
  }
  if not regex:
    columns["f1"] = np.array([p.f1 for p in predictions])
  return QaScores(predictions, columns)


def score_found(
  found: np.ndarray,
  questions: Sequence[qa.Question],
  store: BlockStore,
  regex: bool = False,
) -> dict[str, np.ndarray]:
  """Recall of a ranking [B, k]: recall_1, ..., answer_recall_1, ... [B] each.

  Gold is any block of the question's article; a question that names none isn't
  judged (NaN).
  """
  gold = [
    store.block_of_article(q.article_id) if q.article_id else None
    for q in questions
  ]
  by_gold = retrieval.gold_hits(found, gold)
  answers = [q.answers for q in questions]
  by_answer = retrieval.answer_hits(found, answers, store.text, regex=regex)
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
) -> np.ndarray:
  """The search alone: ids [B, 20] of the best blocks for each question."""
  ids = tokenizer.encode_batch(list(questions))
  found = []
  for rows in chunks(len(ids), batch_size):
    batch = [ids[i] if i >= 0 else [] for i in rows]
    inputs = features.query_inputs(batch, query_len, tokenizer)
    _, best = _search(retriever, params, block_emb, jax.device_put(inputs))
    found.append(np.asarray(best)[rows >= 0])
  return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=0)
def _search(retriever, params, block_emb, inputs):
  query_emb = retriever.embed_query(params, inputs)
  return retriever.search(block_emb, query_emb, NUM_FOUND)


def make_evaluator(
  open_qa: OpenQa,
  tokens: BlockTokens,
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
    return list(scores.summary())

  return evaluate


def chunks(count: int, size: int) -> Iterator[np.ndarray]:
  """0..count-1 in rows of `size`, the last filled up with -1."""
  with progress.Progress(count, "question") as shown:
    for first in range(0, count, size):
      rows = np.arange(first, first + size)
      yield np.where(rows < count, rows, -1)
      shown.update(min(first + size, count))
