"""REALM's forward pass in pre-training: retrieve, read, marginalise.

The query is embedded with current params, the index searched, the candidates'
tokens gathered and every probability computed with current params. Training
and evaluation share it.
"""

import dataclasses

import jax.numpy as jnp
from flax import struct

from realm_jax.models import objective
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.retrieval import candidates
from realm_jax.retrieval.block_tokens import Tokens
from realm_jax.retrieval.retrieve import Retrieval, split_keys
from realm_jax.types import Array, BlockTokens, PretrainBatch


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
    tokens: Tokens,
    batch: PretrainBatch,
    rng: Array | None = None,
    index_params=None,
  ) -> RealmOutput:
    """Retrieves candidates from the index and reads them.

    The search is for the query as `params` embed it or, given those that the
    index was made with, as `index_params` do: query and blocks then are of one
    age, as in the original. Every probability is of `params` either way.
    """
    rngs = split_keys(rng, 3)
    query_emb = self.retrieval.embed_query(params, batch.query, rngs[0])
    wanted = query_emb
    if index_params is not None:
      wanted = self.retrieval.embed_query(index_params, batch.query)
    _, ids = self.retrieval.search(block_emb, wanted, self.num_candidates)
    ids = candidates.drop_trivial(ids, batch.own_block, self.num_candidates)
    return self._weigh(params, tokens, batch, query_emb, ids, rngs[1:])

  def given(
    self,
    params,
    tokens: Tokens,
    batch: PretrainBatch,
    candidate_ids: Array,
    rng: Array | None = None,
  ) -> RealmOutput:
    """The same with the candidates [B, K] given, the null block first."""
    rngs = split_keys(rng, 3)
    query_emb = self.retrieval.embed_query(params, batch.query, rngs[0])
    return self._weigh(
      params, tokens, batch, query_emb, candidate_ids, rngs[1:]
    )

  def _weigh(self, params, tokens, batch, query_emb, ids, rngs):
    """Section 3 of the paper, from candidates to log p(y | x)."""
    blocks = self.retrieval.gather_blocks(tokens, ids)  # [B, K, C-3]
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
