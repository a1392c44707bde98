"""Exact search against a stable NumPy sort, on 1 device, 8, and 2 processes."""

import functools
import json
import pathlib
import re
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realm_jax import backend, sharding
from realm_jax.config import InputError
from realm_jax.retrieval import mips, vectors

ROOT = pathlib.Path(__file__).parent.parent.parent


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


def check(found, block_emb, queries, k):
  """Ids and scores are those of the slow search, with -1 where there is none."""
  n = len(block_emb)
  scores, ids = map(np.asarray, found)
  want_scores, want_ids = slow_top_k(block_emb, queries, min(k, n))
  np.testing.assert_array_equal(ids[:, :n], want_ids)
  np.testing.assert_array_equal(scores[:, :n], want_scores)
  assert ids.shape == scores.shape == (len(queries), k)
  assert (ids[:, n:] == -1).all() and np.isneginf(scores[:, n:]).all()
  assert ids.dtype == np.int32 and scores.dtype == np.float32


search = jax.jit(mips.top_k, static_argnames=("k", "mesh", "num_blocks"))
MESHES = {
  m: sharding.make_mesh(data=m) for m in (2, 8)
} | {1: None}  # fmt: skip


@settings(max_examples=24)
@given(
  n=st.sampled_from([5, 64, 936]),  # of few shapes: each is compiled
  b_and_k=st.sampled_from([(1, 7), (3, 70), (130, 2)]),
  dtype=st.sampled_from([np.float32, jnp.bfloat16]),
  shards=st.sampled_from(list(MESHES)),
  spread=st.integers(1, 4),
  repeats=st.integers(1, 3),
  seed=st.integers(0, 1000),
)
def test_exact_with_ties(n, b_and_k, dtype, shards, spread, repeats, seed):
  (b, k), rows = b_and_k, n // repeats * repeats
  block_emb, queries = integers(rows // repeats, b, 3, seed, spread)
  block_emb = np.tile(block_emb, (repeats, 1))  # duplicates in far places
  size = -(-n // 8) * 8
  padded = np.full((size, 3), 100, np.float32)  # padding would win
  padded[:rows] = block_emb
  mesh = MESHES[shards]
  on_mesh = padded.astype(dtype)
  if mesh is not None:
    on_mesh = sharding.shard_rows(on_mesh, mesh)
  found = search(on_mesh, queries, k, mesh=mesh, num_blocks=rows)
  check(found, block_emb, queries, k)


def test_equal_rows_of_any_numbers_are_equal():
  """Not whole numbers: rounding depends on the order of a sum."""
  rng = np.random.default_rng(0)
  different = rng.standard_normal((40, 24), np.float32)
  which = rng.integers(0, 40, 5003)
  queries = rng.standard_normal((5, 24), np.float32)
  scores, ids = map(np.asarray, search(different[which], queries, 300))
  for row, s in zip(ids, scores, strict=True):
    assert (np.diff(s) <= 0).all()
    for i in np.unique(which[row]):
      found = row[which[row] == i]
      # In order, and none of its equals with a lower id is left out.
      np.testing.assert_array_equal(
        found, np.where(which == i)[0][: len(found)]
      )
      assert len(np.unique(s[which[row] == i])) == 1


def test_a_short_list_of_coarser_rows_is_ranked_again():
  rng = np.random.default_rng(1)
  rows, queries = (
    rng.standard_normal(s, np.float32) for s in ((999, 16), (9, 16))
  )
  want = slow_top_k(rows, queries, 5)[1]
  quantized = vectors.quantize(rows)
  np.testing.assert_allclose(
    quantized.rows * np.asarray(quantized.scale)[:, None],
    rows,
    atol=np.abs(rows).max() / 254 * 1.001,
  )
  for coarse in (quantized, rows.astype(jnp.bfloat16)):
    alone = np.asarray(search(coarse, queries, 5)[1])
    assert 0.8 < (alone == want).mean() < 1
    _, ids = vectors.rescore(rows, queries, search(coarse, queries, 20)[1], 5)
    np.testing.assert_array_equal(ids, want)
  mesh = sharding.make_mesh()
  on_mesh = jax.tree.map(
    lambda x: sharding.shard_rows(x[:992], mesh), quantized
  )
  np.testing.assert_array_equal(
    search(on_mesh, queries, 7, mesh=mesh)[1],
    search(jax.tree.map(lambda x: x[:992], quantized), queries, 7)[1],
  )


@pytest.mark.parametrize("coarse", ["bfloat16", "int8"])
@pytest.mark.parametrize("k", [3, 40])  # by buckets, by all scores
def test_rows_of_few_bits_are_multiplied_as_they_are(coarse, k):
  """As on a GPU: the same rows are found as by products in float32."""
  rng = np.random.default_rng(2)
  rows, queries = (
    rng.standard_normal(s, np.float32) for s in ((599, 48), (7, 48))
  )
  rows = vectors.quantize(rows) if coarse == "int8" else rows.astype(coarse)
  want = slow_top_k(np.asarray(vectors.floats(rows)), queries, k)
  with backend.planned("gpu"):
    traced = jax.jit(lambda *args: mips.top_k(*args, k)).trace(rows, queries)
    scores, ids = traced.lower().compile()(rows, queries)
  assert "bf16[48,7]" in str(traced.jaxpr).replace("bf16[7,48]", "bf16[48,7]")
  np.testing.assert_array_equal(ids, want[1])
  np.testing.assert_allclose(scores, want[0], rtol=1e-5)


def test_rescoring_keeps_the_order_of_ids():
  rows = np.ones((9, 2), np.float32)
  scores, ids = vectors.rescore(rows, rows[:1], jnp.array([[7, -1, 2, 4]]), 4)
  np.testing.assert_array_equal(ids, [[2, 4, 7, -1]])
  np.testing.assert_array_equal(scores, [[2, 2, 2, -np.inf]])


def test_a_recall_target_is_exact_where_there_is_no_tpu():
  block_emb, queries = integers(600, 4, 3, 2, 3)
  found = jax.jit(lambda x, q: mips.top_k(x, q, 9, recall_target=0.9))
  check(found(block_emb, queries), block_emb, queries, 9)


@pytest.mark.parametrize(
  "rows, queries, k, num_blocks, named",
  [
    ((9, 4), (2, 3), 1, None, r"queries \[2, 3\] do not fit an index \[9, 4\]"),
    ((9, 4), (4,), 1, None, r"queries \[4\]"),
    ((9, 4), (2, 4), 0, None, "k=0"),
    ((9, 4), (2, 4), 1, 10, "num_blocks=10, and the index has 9"),
  ],
)
def test_what_does_not_fit_is_refused(rows, queries, k, num_blocks, named):
  with pytest.raises(InputError, match=named):
    mips.top_k(np.zeros(rows), np.zeros(queries), k, num_blocks=num_blocks)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_by_row(bad):
  values = np.ones((6, 3), np.float32)
  vectors.check_finite("queries", values)
  values[4, 1] = bad
  with pytest.raises(InputError, match=r"queries: 1 of 6 .* first is row 4"):
    vectors.check_finite("queries", values)


@pytest.mark.parametrize("n", [16384, 16384 * 2 + 7, 50_001])
def test_many_chunks(n):
  block_emb, queries = integers(n, 3, 4, n, 3)
  scores, ids = jax.jit(mips.top_k, static_argnums=2)(block_emb, queries, 11)
  want_scores, want_ids = slow_top_k(block_emb, queries, 11)
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


_PROCESS = """
import json, sys
import jax, numpy as np
from realm_jax import backend, sharding
from realm_jax.retrieval import mips
from realm_jax.retrieval import vectors
port, process = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(process))
rng = np.random.default_rng(0)
rows, queries = (rng.standard_normal(s, np.float32) for s in ((744, 7), (3, 7)))
mesh = sharding.make_mesh()
assert mesh.size == 8 and len(jax.local_devices()) == 4
search = jax.jit(lambda x, q: mips.top_k(x, q, 11, mesh=mesh, num_blocks=730))
scores, ids = search(sharding.shard_rows(rows, mesh), queries)
print(json.dumps([np.asarray(scores).tolist(), np.asarray(ids).tolist()]))
"""


def test_two_processes_find_the_same(monkeypatch):
  with socket.socket() as s:
    s.bind(("localhost", 0))
    port = str(s.getsockname()[1])
  flags = "--xla_force_host_platform_device_count=4"
  monkeypatch.setenv("XLA_FLAGS", flags)
  started = [
    subprocess.Popen(
      [sys.executable, "-c", _PROCESS, port, str(i)],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  printed = [
    json.loads(p.communicate(timeout=120)[0].splitlines()[-1]) for p in started
  ]
  rng = np.random.default_rng(0)
  rows, queries = (
    rng.standard_normal(s, np.float32) for s in ((744, 7), (3, 7))
  )
  one = [np.asarray(x) for x in search(rows, queries, 11, num_blocks=730)]
  mesh = sharding.make_mesh()
  eight = search(
    sharding.shard_rows(rows, mesh), queries, 11, mesh=mesh, num_blocks=730
  )
  for scores, ids in (*printed, eight):
    np.testing.assert_array_equal(ids, one[1])
    np.testing.assert_allclose(scores, one[0], rtol=1e-6)
