"""The ways through the rows, each by itself, and the sizes that are chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.retrieval import mips, scan
from tests.retrieval.mips_test import check, integers, search


@pytest.mark.parametrize("way, k", [("buckets", 3), ("whole", 60)])
@pytest.mark.parametrize("n", [96, 101, 128])
def test_the_last_chunk_overlaps(monkeypatch, n, way, k):
  """Chunks of 32 rows: none is lost or counted twice, whatever the rest."""
  sizes = mips.Plan(way, tile=3, chunk=32, bucket=8)
  monkeypatch.setattr(mips, "plan", lambda *_: sizes)
  block_emb, queries = integers(n, 7, 3, n, 2)
  found = jax.jit(lambda x, q: mips.top_k(x, q, k))(block_emb, queries)
  check(found, block_emb, queries, k)
  gone = jax.jit(lambda x, q: mips.top_k(x, q, k, num_blocks=n - 30))
  check(gone(block_emb, queries), block_emb[: n - 30], queries, k)


def test_many_are_found_by_bisection():
  block_emb, queries = integers(9000, 3, 5, 0, 3)
  assert mips.plan(9000, 3, 600, "cpu").way == "whole"
  check(search(block_emb, queries, 600), block_emb, queries, 600)


def far_better(n, num_better, at):
  """Rows of which some together are better than all others."""
  block_emb, queries = integers(n, 5, 16, n, 50)
  block_emb[at : at + num_better, 0] += 1000
  queries[:, 0] = 7
  return block_emb, queries


@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize(
  "n, at, num_blocks", [(16_384, 0, None), (16_411, 15_900, 16_000)]
)  # chunks of 4096
def test_a_threshold(monkeypatch, n, at, num_blocks, fits):
  """The list alone is right, and where it does not fit, the search by buckets."""
  sizes = mips.Plan("threshold", tile=3, chunk=4096, bucket=32, step=4)
  plan_of_buckets, made = mips.plan_of_buckets, []
  monkeypatch.setattr(mips, "plan", lambda *_: sizes)
  monkeypatch.setattr(
    mips,
    "plan_of_buckets",
    lambda *a: made.append(a) or plan_of_buckets(*a),
  )
  block_emb, queries = far_better(n, 90, at)
  if fits:
    wrong = lambda rows, queries, k, *_: (  # noqa: E731
      jnp.zeros((len(queries), k)),
      jnp.zeros((len(queries), k), jnp.int32),
    )
    monkeypatch.setattr(scan, "by_buckets", wrong)
  else:
    block_emb[:] = block_emb[:7].repeat(-(-n // 7), 0)[:n]  # many are equal
  found = jax.jit(lambda x, q: mips.top_k(x, q, 300, num_blocks=num_blocks))
  check(found(block_emb, queries), block_emb[:num_blocks], queries, 300)
  assert made == [(n, 1, 300, "cpu")]  # a few queries at a time


def test_fewer_rows_than_the_threshold_counts_on():
  block_emb, queries = integers(16_384, 2, 3, 0, 4)
  assert mips.plan(16_384, 2, 300, "cpu").way == "threshold"
  found = search(block_emb, queries, 300, num_blocks=200)
  scores, ids = found
  check((scores[:, :200], ids[:, :200]), block_emb[:200], queries, 200)
  assert (ids[:, 200:] == -1).all() and np.isneginf(scores[:, 200:]).all()


def test_a_large_index_is_read_once_where_it_fits_besides():
  assert mips.plan(125_000_000, 512, 8, "gpu").tile == 512
  assert mips.plan(125_000_000, 512, 8, "cpu") == ("buckets", 17, 7680, 256, 0)
  few = mips.plan(13_353_718, 512, 5000, "gpu")  # smaller buckets, more of them
  assert few.tile * 13_353_718 / few.bucket <= 4 * 13_353_718


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("n", [1, 100_000, 13_353_718])
@pytest.mark.parametrize("b, k", [(1, 8), (64, 5000), (4096, 8), (512, 5000)])
def test_sizes_stay_in_bounds(platform, n, b, k):
  p = mips.plan(n, b, k, platform)
  fewest = 8 if platform == "cpu" else 1
  assert p.chunk % p.bucket == 0 and 1 <= p.tile <= max(b, fewest)
  buckets = (n + p.chunk) // p.bucket
  held = p.tile * buckets * 4
  assert p.tile == 1 or platform != "cpu" or held < 36e6
  assert (buckets + 1) * p.bucket < 2**31  # ids are int32


def test_few_queries_are_searched_with_as_many_as_cost_nothing(monkeypatch):
  assert mips.plan(131_072, 1, 8, "cpu").tile == 8
  assert mips.plan(131_071, 1, 8, "cpu").tile == 1
  assert mips.plan(131_072, 1, 8, "gpu").tile == 1
  monkeypatch.setattr(mips, "_MANY_ROWS", 1000)
  for b in (1, 3, 9):
    block_emb, queries = integers(2011, b, 3, b, 3)
    find = jax.jit(lambda x, q: mips.top_k(x, q, 4))
    check(find(block_emb, queries), block_emb, queries, 4)
