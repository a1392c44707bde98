"""Exact search against a stable NumPy sort, on 1 device and on 8."""

import functools
import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realm_jax import sharding
from realm_jax.retrieval import mips


def slow_top_k(block_emb, queries, k):
  """Ids by score, equal scores by id."""
  scores = queries @ block_emb.T
  order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
  return np.take_along_axis(scores, order, axis=1), order


def integers(n, b, p, seed, spread):
  """Small whole numbers: products are exact, so ties are real ties."""
  rng = np.random.default_rng(seed)
  draw = functools.partial(rng.integers, -spread, spread + 1)
  return (
    draw(size=(n, p)).astype(np.float32),
    draw(size=(b, p)).astype(np.float32),
  )


@settings(max_examples=25, deadline=None)
@given(
  n=st.integers(1, 200),
  b=st.integers(1, 5),
  k=st.integers(1, 40),
  spread=st.integers(1, 4),
  seed=st.integers(0, 1000),
)
def test_exact_with_ties(n, b, k, spread, seed):
  block_emb, queries = integers(n, b, 3, seed, spread)
  scores, ids = mips.top_k(block_emb, queries, k)
  want_scores, want_ids = slow_top_k(block_emb, queries, min(k, n))
  np.testing.assert_array_equal(ids[:, :n], want_ids)
  np.testing.assert_array_equal(scores[:, :n], want_scores)
  assert (np.asarray(ids)[:, n:] == -1).all()


@pytest.mark.parametrize("n", [16384, 16384 * 2 + 7, 50_001])
def test_many_chunks(n):
  block_emb, queries = integers(n, 3, 4, n, 3)
  scores, ids = jax.jit(mips.top_k, static_argnums=2)(block_emb, queries, 11)
  want_scores, want_ids = slow_top_k(block_emb, queries, 11)
  np.testing.assert_array_equal(ids, want_ids)
  np.testing.assert_array_equal(scores, want_scores)


def test_padding_is_never_found():
  block_emb, queries = integers(64, 2, 3, 0, 2)
  block_emb[40:] = 100  # would win
  _, ids = mips.top_k(block_emb, queries, 50, num_blocks=40)
  want = slow_top_k(block_emb[:40], queries, 40)[1]
  np.testing.assert_array_equal(ids[:, :40], want)
  assert (np.asarray(ids)[:, 40:] == -1).all()


@pytest.mark.parametrize("k", [1, 5, 33])
def test_eight_devices_find_the_same(k):
  mesh = sharding.make_mesh()
  assert mesh.size == 8
  block_emb, queries = integers(8 * 96, 5, 3, k, 2)
  num_blocks = 8 * 96 - 101  # the last shard has less than one real row
  search = jax.jit(
    functools.partial(mips.top_k, k=k, mesh=mesh, num_blocks=num_blocks)
  )
  on_mesh = sharding.shard_rows(block_emb, mesh)
  scores, ids = search(on_mesh, queries)
  want_scores, want_ids = slow_top_k(block_emb[:num_blocks], queries, k)
  np.testing.assert_array_equal(ids, want_ids)
  np.testing.assert_array_equal(scores, want_scores)


def test_only_the_short_lists_are_gathered():
  mesh = sharding.make_mesh()
  block_emb, queries = integers(8 * 4096, 16, 4, 0, 2)
  search = jax.jit(functools.partial(mips.top_k, k=6, mesh=mesh))
  hlo = (
    search.lower(
      sharding.shard_rows(block_emb, mesh), sharding.replicate(queries, mesh)
    )
    .compile()
    .as_text()
  )
  gathered = re.findall(r"= \(?\w+\[([\d,]*)\][^=]* all-gather", hlo)
  sizes = [np.prod([int(n) for n in s.split(",")]) for s in gathered]
  assert sizes and max(sizes) <= 16 * 6 * 8
