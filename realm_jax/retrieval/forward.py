"""The two forward passes of REALM with the search inside them.

`Realm` reads a masked query and predicts its wordpieces (pre-training); `OpenQa`
reads a question and finds the span that answers it (fine-tuning, inference).
Both: embed the query with current params, search the (possibly stale) index,
gather the candidates' tokens, and compute every probability with current
params. The index only selects. Training and evaluation share them.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from realm_jax.models import objective, reader, unpadded
from realm_jax.models.embedder import RealmEmbedder, relevance_score
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.reader import RealmReader
from realm_jax.retrieval import candidates, mips
from realm_jax.retrieval.candidates import Specials
from realm_jax.types import Array, BlockTokens, Inputs, PretrainBatch, QaBatch


@struct.dataclass
class RealmOutput:
  """What pre-training sees of a batch.

  Attributes:
    candidate_ids: [B, K], -1 = null block.
    candidate_log_probs: [B, K] log p(z | x).
    mlm_logits: [B, K, M, V]; None where only the gold ones were computed.
    gold_log_probs: [B, K, M] log p(y_m | z, x).
    marginal_gold_log_probs: [B, M] (or [B, 1]) log p(y | x).
    mlm_mask: [B, M] the masks that were read.
    room: see Retrieval.room.
  """

  candidate_ids: Array
  candidate_log_probs: Array
  mlm_logits: Array | None
  gold_log_probs: Array
  marginal_gold_log_probs: Array
  mlm_mask: Array
  room: dict[str, Array]


class Fill(NamedTuple):
  """Shares of a batch's padded places that are computed; 1 computes them all.

  A batch that holds more wordpieces has its longest sequences cut
  (models/unpadded.py).

  Attributes:
    query: of the queries [B, Q].
    block: of the candidates [B, K, C].
    joint: of the joint sequences [B, K, L].
    masks: of the masked wordpieces [B, M].
  """

  query: float = 1.0
  block: float = 1.0
  joint: float = 1.0
  masks: float = 1.0


ALL = Fill()


@dataclasses.dataclass(frozen=True)
class Retrieval:
  """What every search of a run shares.

  Attributes:
    embedder: of queries and blocks.
    specials: ids of the special wordpieces.
    num_blocks: real rows of the index; the rest is padding.
    score_scale: what f(x, z) is multiplied with (1 in the original; a small
      model that starts from ICT wants 1/sqrt(P)).
    mesh: where the index lies; None for one device.
    frozen: whether no gradient reaches the embedder; spares its backward pass.
    fill: how much of a batch is computed.
  """

  embedder: RealmEmbedder
  specials: Specials
  num_blocks: int
  score_scale: float = 1.0
  mesh: Mesh | None = None
  frozen: bool = False
  fill: Fill = ALL

  def embed_query(self, params, query: Inputs, rng=None) -> Array:
    """[B, Q] -> [B, P]."""
    query = candidates.visible(query, self.embedder, self.specials)
    return self.embed(params, query, rng, self.fill.query)

  def embed_blocks(
    self, params, blocks: BlockTokens, rng=None, fill: float = 1.0
  ) -> Array:
    """[..., C-3] -> [..., P]."""
    inputs = candidates.block_inputs(blocks, self.specials)
    return self.embed(params, inputs, rng, fill)

  def embed(self, params, inputs: Inputs, rng=None, fill: float = 1.0) -> Array:
    """[..., T] -> [..., P]."""
    params = params["embedder"]
    if self.frozen:
      params = jax.lax.stop_gradient(params)
    layout = self.lay_out(inputs.attention_mask, fill)
    return candidates.embed(self.embedder, params, inputs, rng, layout)

  def lay_out(self, mask: Array, fill: float) -> unpadded.Layout | None:
    """Of the rows of [..., T]; None where all is computed."""
    groups = 1 if self.mesh is None else self.mesh.size
    return unpadded.lay_out(mask.reshape(-1, mask.shape[-1]), fill, groups)

  def room(self, *masks_and_fills: tuple[Array, float]) -> dict[str, Array]:
    """How well some [..., T] tokens fit the places that are computed.

    Returns:
      "cut_tokens": () share of the tokens that had no room, and "padding": ()
      share of the places that held no token.
    """
    tokens, kept, places = 0, 0, 0
    for mask, fill in masks_and_fills:
      layout = self.lay_out(mask, fill)
      tokens += mask.sum()
      kept += (mask if layout is None else layout.mask).sum()
      places += mask.size if layout is None else layout.source.size
    return {"cut_tokens": 1 - kept / tokens, "padding": 1 - kept / places}

  def embed_candidates(self, params, blocks: BlockTokens, rng=None) -> Array:
    """Embeds candidates [B, K, C-3] -> [B, K, P].

    Slot 0 is the null block of every query: it is embedded once.
    """
    rngs = _keys(rng, 2)
    null = jax.tree.map(lambda x: x[:1, :1], blocks)
    null_emb = self.embed_blocks(params, null, rngs[0])  # [1, 1, P]
    b, k = blocks.lens.shape
    null_emb = jnp.broadcast_to(null_emb, (b, 1, null_emb.shape[-1]))
    if k == 1:
      return null_emb
    others = jax.tree.map(lambda x: x[:, 1:], blocks)
    others_emb = self.embed_blocks(params, others, rngs[1], self.fill.block)
    return jnp.concatenate([null_emb, others_emb], axis=1)

  def search(self, block_emb: Array, query_emb: Array, k: int):
    """Scores and ids [B, k] of the best blocks; no gradient passes."""
    scores, ids = mips.top_k(
      block_emb,
      jax.lax.stop_gradient(query_emb),
      k,
      mesh=self.mesh,
      num_blocks=self.num_blocks,
    )
    return scores * self.score_scale, ids

  def relevance_score(self, query_emb: Array, candidate_emb: Array) -> Array:
    """Scaled f(x, z): [B, P], [B, K, P] -> [B, K]."""
    return self.score_scale * relevance_score(query_emb, candidate_emb)


@dataclasses.dataclass(frozen=True)
class Realm:
  """Masked queries: retrieve, read, marginalise.

  Attributes:
    retrieval: the search.
    encoder: the knowledge-augmented encoder.
    num_candidates: K, the null block among them.
    joint_len: wordpieces of a query and a candidate's body together.
    marginalise: "token" or "span" (objective.marginal_gold_log_probs).
    contiguous: positions in the joint sequence, see candidates.join.
  """

  retrieval: Retrieval
  encoder: RealmKnowledgeAugEncoder
  num_candidates: int
  joint_len: int
  marginalise: str = "token"
  contiguous: bool = True

  def __call__(
    self,
    params,
    block_emb: Array,
    tokens: BlockTokens,
    batch: PretrainBatch,
    rng: Array | None = None,
  ) -> RealmOutput:
    """Retrieves candidates from the index and reads them."""
    rngs = _keys(rng, 3)
    query_emb = self.retrieval.embed_query(params, batch.query, rngs[0])
    _, ids = self.retrieval.search(block_emb, query_emb, self.num_candidates)
    ids = candidates.drop_trivial(ids, batch.own_block, self.num_candidates)
    return self._weigh(params, tokens, batch, query_emb, ids, rngs[1:])

  def given(
    self,
    params,
    tokens: BlockTokens,
    batch: PretrainBatch,
    candidate_ids: Array,
    rng: Array | None = None,
  ) -> RealmOutput:
    """The same with the candidates [B, K] given, the null block first."""
    rngs = _keys(rng, 3)
    query_emb = self.retrieval.embed_query(params, batch.query, rngs[0])
    return self._weigh(
      params, tokens, batch, query_emb, candidate_ids, rngs[1:]
    )

  def _weigh(self, params, tokens, batch, query_emb, ids, rngs):
    """Section 3 of the paper, from candidates to log p(y | x)."""
    blocks = candidates.gather_blocks(tokens, ids)  # [B, K, C-3]
    candidate_emb = self.retrieval.embed_candidates(params, blocks, rngs[0])
    score = self.retrieval.relevance_score(query_emb, candidate_emb)  # [B, K]
    log_probs = objective.candidate_log_probs(score)
    states = self.mask_states(params, batch, blocks, rngs[1])  # [B, K, M, D]
    mask, logits, gold = self.score_words(params, batch, states)
    marginal = objective.marginal_gold_log_probs(
      log_probs, gold, mask, self.marginalise
    )
    room = self.room(batch, blocks)
    return RealmOutput(ids, log_probs, logits, gold, marginal, mask, room)

  def score_words(
    self, params, batch: PretrainBatch, states: Array
  ) -> tuple[Array, Array | None, Array]:
    """p(y | z, x) of each masked wordpiece beside each of its query's blocks.

    Args:
      params: {"encoder"}.
      batch: the queries.
      states: [B, K, M, D], see mask_states.

    Returns:
      mlm_mask [B, M] of those that were read; the logits [B, K, M, V], or None
      where fill.masks spares those of no mask; log p(y_m | z, x) [B, K, M].
    """
    layout = self.retrieval.lay_out(batch.mlm_mask, self.retrieval.fill.masks)
    if layout is None:
      logits = self.word_logits(params, states)
      gold = objective.gold_log_probs(logits, batch.mlm_targets)
      return batch.mlm_mask, logits, gold
    states = layout.pack(jnp.swapaxes(states, 1, 2))  # [G, S, K, D]
    logits = self.word_logits(params, jnp.swapaxes(states, 1, 2))
    gold = objective.gold_log_probs(logits, layout.pack(batch.mlm_targets))
    gold = layout.unpack(jnp.swapaxes(gold, 1, 2))  # [B, M, K]
    return layout.mask.astype(jnp.int32), None, jnp.swapaxes(gold, 1, 2)

  def read(
    self, params, batch: PretrainBatch, blocks: BlockTokens, rng=None
  ) -> Array:
    """MLM logits of each query beside each of its blocks, [B, K, M, V]."""
    states = self.mask_states(params, batch, blocks, rng)
    return self.word_logits(params, states)

  def mask_states(
    self, params, batch: PretrainBatch, blocks: BlockTokens, rng=None
  ) -> Array:
    """What the encoder makes of the masks, [B, K, M, D]."""
    joint, _ = self.join(batch, blocks)
    b, k = joint.input_ids.shape[:2]
    fill = self.retrieval.fill.joint
    states = self.encoder.apply(
      {"params": params["encoder"]},
      candidates.flatten(joint),
      jnp.repeat(batch.mlm_positions, k, axis=0),  # [B * K, M]
      self.retrieval.lay_out(joint.attention_mask, fill),
      deterministic=rng is None,
      rngs=None if rng is None else {"dropout": rng},
      method=RealmKnowledgeAugEncoder.mask_states,
    )
    return states.reshape(b, k, *states.shape[1:])

  def word_logits(self, params, states: Array) -> Array:
    """[..., D] -> [..., V]."""
    given = {"params": params["encoder"]}
    method = RealmKnowledgeAugEncoder.word_logits
    return self.encoder.apply(given, states, method=method)

  def room(self, batch: PretrainBatch, blocks: BlockTokens) -> dict[str, Array]:
    """As Retrieval.room, of all that is computed of a batch."""
    retrieval, fill = self.retrieval, self.retrieval.fill
    query = candidates.visible(
      batch.query, retrieval.embedder, retrieval.specials
    )
    joint, _ = self.join(batch, blocks)
    computed = [
      (query.attention_mask, fill.query),
      (joint.attention_mask, fill.joint),
      (batch.mlm_mask, fill.masks),
    ]
    if blocks.lens.shape[1] > 1:  # beside the null block
      block = candidates.block_inputs(blocks, retrieval.specials)
      computed.append((block.attention_mask[:, 1:], fill.block))
    return retrieval.room(*computed)

  def shows(self, batch: PretrainBatch, blocks: BlockTokens) -> Array:
    """Which masked wordpieces stand in what is read of each block, [B, K, M]."""
    joint, body_mask = self.join(batch, blocks)
    same = joint.input_ids[:, :, None] == batch.mlm_targets[:, None, :, None]
    return (same & body_mask[:, :, None]).any(-1)

  def join(self, batch, blocks):
    """As candidates.join."""
    specials = self.retrieval.specials
    return candidates.join(
      batch.query, blocks, self.joint_len, specials, self.contiguous
    )


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
  """

  block_ids: Array
  relevance_score: Array
  span_logits: Array
  block: Array
  start: Array
  end: Array
  room: dict[str, Array]


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
    tokens: BlockTokens,
    question: Inputs,
    beam: int,
    rng: Array | None = None,
  ) -> QaOutput:
    """Finds `beam` blocks for each question [B, Q] and reads the first K."""
    rngs = _keys(rng, 3)
    query_emb = self.retrieval.embed_query(params, question, rngs[0])
    _, ids = self.retrieval.search(block_emb, query_emb, beam)
    if self.embed_found:
      found = candidates.gather_blocks(tokens, ids)
      found_emb = self.retrieval.embed_blocks(
        params, found, rngs[1], self.retrieval.fill.block
      )
    else:
      found_emb = jax.lax.stop_gradient(block_emb[ids]).astype(query_emb.dtype)
    score = self.retrieval.relevance_score(query_emb, found_emb)  # [B, N]
    joint, body_mask = self.join(tokens, question, ids)
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
    )

  @property
  def max_width(self) -> int:
    """Wordpieces of the widest span."""
    return self.reader.config.max_span_width

  def spans(self) -> tuple[Array, Array]:
    """Starts and ends of the S spans, counted from a body's first wordpiece."""
    return reader.span_candidates(self.joint_len - 3, self.max_width)

  def join(
    self, tokens: BlockTokens, question: Inputs, ids: Array
  ) -> tuple[Inputs, Array]:
    """Questions beside their first K = reader_beam_size blocks, [B, K, L]."""
    k = min(self.reader.config.reader_beam_size, ids.shape[1])
    return candidates.join(
      question,
      candidates.gather_blocks(tokens, ids[:, :k]),
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
    self, tokens: BlockTokens, batch: QaBatch, output: QaOutput
  ) -> QaLabels:
    """Looks the answers' wordpieces up in the blocks found and in those read.

    A block "has the answer" if it stands anywhere in its body; a span is gold
    if it is one, within what the reader sees (original: reader_inputs op).
    """
    found = candidates.gather_blocks(tokens, output.block_ids)
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


def _keys(rng, n):
  return [None] * n if rng is None else list(jax.random.split(rng, n))
