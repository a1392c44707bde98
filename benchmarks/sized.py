"""Models of a size and batches for them, without a config and without data.

What is measured beside a peer: its sizes are a benchmark's own, so that they
are the same for both.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import synthetic
from realm_jax.config import RealmConfig
from realm_jax.models import convert, objective
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.retrieval.realm import Realm
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.types import BlockTokens, PretrainBatch


class Sizes(NamedTuple):
  """Of a step; as in types.py, `block` and `query` are mean wordpieces."""

  B: int = 2
  K: int = 8
  Q: int = 64
  C: int = 128
  L: int = 192
  M: int = 8
  V: int = 30_522
  layers: int = 6
  hidden: int = 384
  heads: int = 12
  block: int = 94
  query: int = 37

  def config(self, **more: Any) -> RealmConfig:
    """Of a model without dropout."""
    return RealmConfig(
      vocab_size=self.V,
      hidden_size=self.hidden,
      num_hidden_layers=self.layers,
      num_attention_heads=self.heads,
      intermediate_size=4 * self.hidden,
      num_candidates=self.K,
      hidden_dropout_prob=0.0,
      attention_probs_dropout_prob=0.0,
      max_position_embeddings=max(512, self.L),
      pad_token_id=synthetic.SPECIALS.pad,
      **more,
    )


class Given(NamedTuple):
  """A batch: its queries and, for each, K blocks; none is the null block."""

  batch: PretrainBatch
  blocks: BlockTokens


def make_batch(sizes: Sizes, seed: int) -> Given:
  """Made-up queries and blocks of lengths as in the leads."""
  s, rng = sizes, np.random.default_rng(seed)
  queries = synthetic.masked_queries(
    rng, s.B, s.Q, s.V, synthetic.SPECIALS, s.query, s.M
  )
  shape = (s.B, s.K)
  return Given(queries, synthetic.block_tokens(rng, shape, s.C, s.V, s.block))


def make_realm(sizes: Sizes, config: RealmConfig) -> Realm:
  """The model of a run, all padding computed."""
  retrieval = Retrieval(
    RealmEmbedder(config), synthetic.SPECIALS, num_blocks=sizes.K
  )
  return Realm(retrieval, RealmKnowledgeAugEncoder(config), sizes.K, sizes.L)


def init_params(realm: Realm) -> dict:
  """New params of both models."""
  modules = {"embedder": realm.retrieval.embedder, "encoder": realm.encoder}
  keys = jax.random.split(jax.random.key(0), len(modules))
  init = jax.jit(convert.fresh_params, static_argnums=0)
  return {
    name: init(module, key)
    for (name, module), key in zip(modules.items(), keys, strict=True)
  }


def loss(realm: Realm, params: dict, given: Given) -> jax.Array:
  """The loss of a step whose candidates are given, the first of them too.

  Realm embeds the null block once for all queries; the peer can't.
  """
  batch, retrieval = given.batch, realm.retrieval
  query_emb = retrieval.embed_query(params, batch.query)
  block_emb = retrieval.embed_blocks(
    params, given.blocks, fill=retrieval.fill.block
  )
  score = retrieval.relevance_score(query_emb, block_emb)
  states = realm.mask_states(params, batch, given.blocks)
  mask, _, gold = realm.score_words(params, batch, states)
  marginal = objective.marginal_gold_log_probs(
    objective.candidate_log_probs(score), gold, mask
  )
  return objective.realm_loss(marginal, mask)
