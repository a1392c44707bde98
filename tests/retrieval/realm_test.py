"""Whose params embed the query that is searched for."""

import jax
import jax.numpy as jnp
import numpy as np

from realm_jax.retrieval.realm import Realm
from realm_jax.retrieval.retrieve import Retrieval
from tests import tiny_realm as tiny


class Numbers(Retrieval):
  """The embedder's param itself, for every query."""

  def embed_query(self, params, query, rng=None):
    return jnp.tile(params["embedder"], (tiny.B, 1))


class Chosen(Realm):
  """What is read, and with which query embedding it is weighed."""

  def _weigh(self, params, tokens, batch, query_emb, ids, rngs):
    return query_emb, ids


def test_the_params_of_the_index_select_and_no_more():
  rng = np.random.default_rng(0)
  now, then = rng.normal(size=(2, 10)).astype(np.float32)
  block_emb = rng.normal(size=(tiny.ROWS, 10)).astype(np.float32)
  batch = tiny.pretrain_batch().replace(own_block=np.full(tiny.B, -1))
  realm = tiny.realm()
  realm = Chosen(
    **vars(realm) | {"retrieval": Numbers(**vars(realm.retrieval))}
  )

  @jax.jit
  def run(index_params):
    params = {"embedder": now}
    return realm(params, block_emb, None, batch, None, index_params)

  def best(query_emb):
    scores = block_emb[: tiny.N] @ query_emb
    return np.argsort(-scores)[: tiny.K - 1].tolist()

  for index_params, searched in ((None, now), ({"embedder": then}, then)):
    query_emb, ids = run(index_params)
    assert ids[0].tolist() == [-1, *best(searched)]
    np.testing.assert_array_equal(query_emb[0], now)
  assert best(now) != best(then)
