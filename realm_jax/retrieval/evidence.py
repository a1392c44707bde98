"""From a forward pass to answers that a person can check.

Evaluation and serving share this: what of the passes of open_qa.py and realm.py,
without dropout, makes an answer, and the way back from wordpieces to text. An
answer is cut out of the raw text of its block, so that it is spelt as there.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from realm_jax.models.objective import candidate_log_probs
from realm_jax.retrieval import candidates
from realm_jax.retrieval.block_tokens import Tokens
from realm_jax.retrieval.open_qa import QaOutput
from realm_jax.retrieval.realm import Realm, RealmOutput
from realm_jax.types import Array, PretrainBatch


@dataclasses.dataclass(frozen=True)
class Evidence:
  """A block shown beside an answer.

  Attributes:
    block_id: its row in the index; -1 is the null block (no evidence).
    title, text: its raw text.
    p: p(z | x) among the blocks shown; None: no probability (BM25).
    span: where the answer stands in `text`, characters; None: not in here.
  """

  block_id: int
  title: str
  text: str
  p: float | None
  span: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
  """An answer with its evidence.

  Attributes:
    text: "" where the model has none.
    score: log-probability the model gives it (see Reading, Filling).
    evidence: the blocks it was found in or weighed with, highest p first.
  """

  text: str
  score: float
  evidence: tuple[Evidence, ...]


@struct.dataclass
class Reading:
  """What a span reader says about questions.

  Attributes:
    block_ids: [B, N] found, best first, -1 where there is none.
    log_probs: [B, K] log p(z | x) among the K blocks read.
    block: [B] the slot of the best span's block.
    start, end: [B] the span in that block's body, wordpieces, end inclusive.
    score: [B] log-probability of that span among all spans of all K blocks.
  """

  block_ids: Array
  log_probs: Array
  block: Array
  start: Array
  end: Array
  score: Array


@struct.dataclass
class Filling:
  """What a masked-language model puts in the place of the masks.

  Attributes:
    block_ids: [B, K] candidates, slot 0 the null block (-1).
    log_probs: [B, K] log p(z | x).
    token_ids: [B, M] the wordpiece of highest p(y_m | x).
    score: [B] sum over the masks of log p(y_m | x).
  """

  block_ids: Array
  log_probs: Array
  token_ids: Array
  score: Array


def reading(output: QaOutput) -> Reading:
  """The part of an OpenQa pass that an answer is made of."""
  logits = output.span_logits  # [B, K, S]
  k = logits.shape[1]
  there = output.block_ids[:, :k] >= 0
  relevance = jnp.where(there, output.relevance_score[:, :k], -jnp.inf)
  flat = jax.nn.log_softmax(logits.reshape(logits.shape[0], -1), axis=-1)
  return Reading(
    block_ids=output.block_ids,
    log_probs=candidate_log_probs(relevance),
    block=output.block,
    start=output.start,
    end=output.end,
    score=flat.max(-1),
  )


@functools.partial(jax.jit, static_argnames="realm")
def fill(
  realm: Realm,
  params,
  block_emb: Array | None,
  tokens: Tokens,
  batch: PretrainBatch,
) -> Filling:
  """Fills the masks with p(y | x), summed over the candidates.

  Without an index (block_emb None) the null block is the only candidate: what
  the encoder knows by heart. Special wordpieces are never filled in.
  """
  if block_emb is None:
    null = jnp.full((batch.own_block.shape[0], 1), candidates.NULL)
    output = realm.given(params, tokens, batch, null)
  else:
    output = realm(params, block_emb, tokens, batch)
  words = word_log_probs(output, realm.retrieval.specials)
  return Filling(
    block_ids=output.candidate_ids,
    log_probs=output.candidate_log_probs,
    token_ids=words.argmax(-1),
    score=(words.max(-1) * batch.mlm_mask).sum(-1),
  )


def word_log_probs(output: RealmOutput, specials: Sequence[int]) -> Array:
  """log p(y_m | x) of every wordpiece, [B, M, V]; special ones have -inf."""
  log_probs = jax.nn.log_softmax(output.mlm_logits)  # [B, K, M, V]
  weights = output.candidate_log_probs[..., None, None]
  marginal = jax.nn.logsumexp(weights + log_probs, axis=1)  # [B, M, V]
  return marginal.at[..., jnp.array(specials)].set(-jnp.inf)


def span_of(
  store, tokenizer, block: int, start: int, end: int
) -> tuple[int, int]:
  """Where wordpieces start..end (inclusive) of a block's body are in its text.

  Args:
    store: data.blocks.BlockStore.
    tokenizer: the one the store was made with.
    block: its id.
    start, end: wordpieces of the body.

  Returns:
    (first, past the last) character of store.text(block).
  """
  raw = store.text(block).encode()
  ends, encoded = [], {}
  for wordpiece in (start, end):
    sentence, first_byte, first = store.sentence_at(block, wordpiece)
    if first not in encoded:  # most spans are within a sentence
      encoded[first] = tokenizer.encode_with_offsets(sentence)[1]
    ends.append([first_byte + at for at in encoded[first][wordpiece - first]])
  return len(raw[: ends[0][0]].decode()), len(raw[: ends[1][1]].decode())


def read_answers(
  found: Reading, store, tokenizer, text_of: Sequence[int] | None = None
) -> list[Answer]:
  """Answers as text, one a row of the (NumPy) reading.

  Args:
    found: of B questions.
    store, tokenizer: as for `span_of`.
    text_of: [N] the block whose tokens the reader saw in place of each block's
      own; None: each its own.
  """
  return [
    _read_answer(row, store, tokenizer, text_of)
    for row in _rows(jax.device_get(found))
  ]


def fill_answers(
  filled: Filling, num_masks: Sequence[int], store, tokenizer
) -> list[Answer]:
  """Answers as text from the first num_masks[b] masks of each row."""
  return [
    _fill_answer(row, masks, store, tokenizer)
    for row, masks in zip(_rows(jax.device_get(filled)), num_masks, strict=True)
  ]


def _read_answer(row, store, tokenizer, text_of):
  ids = row.block_ids[: len(row.log_probs)]
  if text_of is not None:
    ids = np.where(ids >= 0, np.asarray(text_of)[ids], ids)
  block, start, end = int(ids[row.block]), int(row.start), int(row.end)
  if block < 0 or end >= len(store.body_ids(block)):
    shown = make_evidence(ids, row.log_probs, store)
    return Answer("", float(row.score), shown)
  span = span_of(store, tokenizer, block, start, end)
  text = store.text(block)[slice(*span)]
  shown = make_evidence(ids, row.log_probs, store, {block: span})
  return Answer(text, float(row.score), shown)


def _fill_answer(row, num_masks, store, tokenizer):
  text = tokenizer.decode(row.token_ids[:num_masks].tolist())
  shown = make_evidence(row.block_ids, row.log_probs, store)
  return Answer(text, float(row.score), shown)


def make_evidence(
  ids: np.ndarray,
  log_probs: np.ndarray,
  store,
  spans: dict[int, tuple[int, int]] | None = None,
) -> tuple[Evidence, ...]:
  """Titles and texts of one question's blocks, the highest p(z | x) first.

  Args:
    ids: [K], -1 is the null block.
    log_probs: [K] log p(z | x); a block of -inf is left out.
    store: data.blocks.BlockStore.
    spans: {block id: where the answer stands in it}.
  """
  shown = [
    Evidence(
      block_id=block,
      title=store.title(block) if block >= 0 else "",
      text=store.text(block) if block >= 0 else "",
      p=float(np.exp(log_prob)),
      span=(spans or {}).get(block),
    )
    for block, log_prob in zip(ids.tolist(), log_probs, strict=True)
    if not np.isneginf(log_prob)
  ]
  return tuple(sorted(shown, key=lambda block: -block.p))


def _rows(batch):
  """The rows of a struct of NumPy arrays, one struct a row."""
  count = len(batch.block_ids)
  return (jax.tree.map(lambda x, i=i: x[i], batch) for i in range(count))
