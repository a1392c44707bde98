"""REALM's forward pass on questions: retrieve, read, point at the answer.

For fine-tuning and inference alike. As in pre-training the index only selects,
unless blocks are frozen: then its rows are what the blocks are scored by.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from realm_jax.models import reader
from realm_jax.models.reader import RealmReader
from realm_jax.retrieval import candidates
from realm_jax.retrieval.block_tokens import Tokens
from realm_jax.retrieval.retrieve import Retrieval, split_keys
from realm_jax.types import Array, BlockTokens, Inputs, QaBatch


@struct.dataclass
class QaOutput:
  """What reading gives for a batch of questions.

  Attributes:
    block_ids: [B, N] found blocks, best first.
    relevance_score: [B, N], scaled.
    span_logits: [B, K, S] over the first K blocks, relevance included.
    block: [B] slot of the best span; start, end: [B] its wordpieces within
      the body, end inclusive.
    room: see Retrieval.room.
    found: [B, N, C-3] tokens of the blocks found; None where only those that
      are read were gathered.
  """

  block_ids: Array
  relevance_score: Array
  span_logits: Array
  block: Array
  start: Array
  end: Array
  room: dict[str, Array]
  found: BlockTokens | None


@struct.dataclass
class QaLabels:
  """Where the answers are: has_answer [B, N], gold_span [B, K, S], bool."""

  has_answer: Array
  gold_span: Array


@dataclasses.dataclass(frozen=True)
class OpenQa:
  """Questions: retrieve, read, point at the answer.

  Attributes:
    retrieval: the search.
    reader: the span reader; `config.reader_beam_size` blocks are read.
    joint_len: wordpieces of a question and a block's body together.
    embed_found: whether the blocks found are embedded anew with current
      params, so that blocks learn too; False takes their rows of the index
      (frozen blocks, as the original).
    contiguous: positions in the joint sequence, see candidates.join.
  """

  retrieval: Retrieval
  reader: RealmReader
  joint_len: int
  embed_found: bool = False
  contiguous: bool = True

  def __call__(
    self,
    params,
    block_emb: Array,
    tokens: Tokens,
    question: Inputs,
    beam: int,
    rng: Array | None = None,
  ) -> QaOutput:
    """Finds `beam` blocks for each question [B, Q] and reads the first K."""
    rngs = split_keys(rng, 3)
    query_emb = self.retrieval.embed_query(params, question, rngs[0])
    _, ids = self.retrieval.search(block_emb, query_emb, beam)
    found = None
    if self.embed_found:
      found = self.retrieval.gather_blocks(tokens, ids)
      read = jax.tree.map(lambda x: x[:, : self.num_read(beam)], found)
      found_emb = self.retrieval.embed_blocks(
        params, found, rngs[1], self.retrieval.fill.block
      )
    else:
      read = self.gather_read(tokens, ids)
      found_emb = jax.lax.stop_gradient(block_emb[ids]).astype(query_emb.dtype)
    score = self.retrieval.relevance_score(query_emb, found_emb)  # [B, N]
    joint, body_mask = self.join(question, read)
    logits = self.read(params, question, joint, body_mask, rngs[2])
    k = logits.shape[1]
    logits = logits + score[:, :k, None]  # [B, K, S]
    starts, ends = self.spans()
    block, span = reader.best_span(logits)
    return QaOutput(
      block_ids=ids,
      relevance_score=score,
      span_logits=logits,
      block=block,
      start=jnp.asarray(starts)[span],
      end=jnp.asarray(ends)[span],
      room=self.retrieval.room(
        (question.attention_mask, self.retrieval.fill.query),
        (joint.attention_mask, self.retrieval.fill.joint),
      ),
      found=found,
    )

  @property
  def max_width(self) -> int:
    """Wordpieces of the widest span."""
    return self.reader.config.max_span_width

  def spans(self) -> tuple[Array, Array]:
    """Starts and ends of the S spans, counted from a body's first wordpiece."""
    return reader.span_candidates(self.joint_len - 3, self.max_width)

  def num_read(self, beam: int) -> int:
    """K, of so many blocks found."""
    return min(self.reader.config.reader_beam_size, beam)

  def gather_read(self, tokens: Tokens, ids: Array) -> BlockTokens:
    """The tokens of the first K of the blocks `ids` [B, N]."""
    ids = ids[:, : self.num_read(ids.shape[1])]
    return self.retrieval.gather_blocks(tokens, ids)

  def join(self, question: Inputs, blocks: BlockTokens) -> tuple[Inputs, Array]:
    """Questions beside the blocks that are read, [B, K, L]."""
    return candidates.join(
      question,
      blocks,
      self.joint_len,
      self.retrieval.specials,
      self.contiguous,
    )

  def read(
    self, params, question: Inputs, joint: Inputs, body_mask: Array, rng=None
  ) -> Array:
    """Span logits [B, K, S] of joint sequences [B, K, L]."""
    b, k = joint.input_ids.shape[:2]
    columns = candidates.body_columns(question, self.joint_len)
    fill = self.retrieval.fill.joint
    logits = self.reader.apply(
      {"params": params["reader"]},
      candidates.flatten(joint),
      body_mask.reshape(-1, body_mask.shape[-1]),
      jnp.repeat(columns, k, axis=0),
      self.retrieval.lay_out(joint.attention_mask, fill),
      deterministic=rng is None,
      rngs=None if rng is None else {"dropout": rng},
      method=RealmReader.span_logits,
    )
    return logits.reshape(b, k, -1)

  def labels(
    self, tokens: Tokens, batch: QaBatch, output: QaOutput
  ) -> QaLabels:
    """Looks the answers' wordpieces up in the blocks found and in those read.

    A block "has the answer" if it stands anywhere in its body; a span is gold
    if it is one, within what the reader sees (original: reader_inputs op).
    """
    found = output.found
    if found is None:
      found = self.retrieval.gather_blocks(tokens, output.block_ids)
    ids, mask = candidates.body(found, found.token_ids.shape[-1])
    hits, _ = candidates.find_answers(
      ids, mask, batch.answer_ids, batch.answer_lens
    )  # [B, N, A, C-3]
    k = output.span_logits.shape[1]
    starts, ends = self.spans()
    seen = starts.max() + 1
    whole = jnp.pad(
      hits[:, :k, :, :seen],
      ((0, 0), (0, 0), (0, 0), (0, max(0, seen - hits.shape[-1]))),
    )
    is_answer = whole[..., starts] & (
      batch.answer_lens[:, None, :, None] == ends - starts + 1
    )  # [B, K, A, S]
    in_body = output.span_logits > jnp.finfo(jnp.float32).min / 2
    return QaLabels(hits.any((-1, -2)), is_answer.any(-2) & in_body)
