"""Exact maximum inner product search, on one device or with rows over a mesh.

The score matrix [B, N] is never whole in memory. A scan over chunks of rows
keeps one number of each bucket of consecutive rows, its maximum, taken while
the chunk's scores are in the cache. Every row of the top k lies in one of the k
best buckets: each of k better buckets would hold a better row, and of equal
buckets the lower one goes first, as its rows do. So one selection over buckets
in the end, and one over the rows of the k best, find the top k.

Scores are float32 sums. A bucket's maximum and the score of a row in the list
are summed in different orders: rows whose scores differ by less than the
rounding of such a sum may change places, and at the end of the list one may be
there for the other; `_MARGIN` more buckets than k are looked into, so that it
takes several such at once. Where products are exact (whole numbers), so is
everything. Equal rows have equal scores and come in order of their ids.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from realm_jax.config import InputError
from realm_jax.retrieval import selection, vectors
from realm_jax.types import Array

_MARGIN = 2  # buckets beyond k, against rounding


class Plan(NamedTuple):
  """Sizes of a search.

  Attributes:
    tile: queries searched at a time.
    chunk: rows scored at a time, a multiple of bucket.
    bucket: consecutive rows that a maximum is taken over.
    keep: whether a tile's scores are kept, not computed again for the list.
  """

  tile: int
  chunk: int
  bucket: int
  keep: bool


def plan(n: int, b: int, k: int, platform: str) -> Plan:
  """Chooses the sizes for n rows, b queries and k on "cpu", "gpu" or "tpu".

  bucket: a query ranks n / bucket maxima and gathers k * bucket rows, one of
    which costs as much as some 20 maxima: sqrt(n / 20 k), as a power of two.
  keep: where the list is more than 1/32 of all rows, reading its scores back is
    cheaper than gathering its rows.
  tile: 128 queries on a CPU, enough for the product to be its fastest; fewer
    where what is held of each row or bucket would be more than 32 MB (kept
    scores then stay in a large cache; selection takes twice that besides).
  chunk: on a CPU its scores are 512 kB, half a core's L2 cache; elsewhere 128
    MB, for the product to fill the device.
  """
  on_cpu = platform == "cpu"
  bucket = 2 ** round(math.log2(max(n / (20 * k), 1)) / 2)
  bucket = min(max(bucket, 8), 256)
  keep = 32 * k * bucket > n
  tile = 128 if on_cpu else 512
  held = 2**23 * (1 if keep else bucket) // n
  tile = min(tile, max(held, 1))
  tile = -(-b // max(-(-b // tile), 1))  # tiles of even sizes
  chunk = (2**17 if on_cpu else 2**25) // max(tile, 1) // bucket * bucket
  return Plan(
    tile, max(min(chunk, -(-n // bucket) * bucket), bucket), bucket, keep
  )


def top_k(
  block_emb: Array | vectors.Quantized,
  queries: Array,
  k: int,
  *,
  mesh: Mesh | None = None,
  num_blocks: int | None = None,
  recall_target: float | None = None,
) -> tuple[Array, Array]:
  """Finds the k blocks of highest inner product with each query.

  For use inside a jitted function or outside. Values can't be looked at inside:
  that rows and queries are finite is for the door to check (`vectors.check_finite`).

  Args:
    block_emb: [N, P] of any float type, or `vectors.quantize`d; with a mesh, rows sharded
      over all of its axes. Products are in float32.
    queries: [B, P].
    k: how many.
    mesh: where the rows lie; None for one device.
    num_blocks: rows from this one on are padding and never found.
    recall_target: None for the exact search; else jax.lax.approx_max_k with
      this expected recall in each shard, which is faster on TPU and exact, and
      slower, on everything else.

  Returns:
    scores [B, k] in float32, best first, and ids [B, k] in int32; equal scores
    go to the lower id. Where there are fewer than k blocks, score -inf, id -1.

  Raises:
    InputError: sizes that don't fit together.
  """
  _check_sizes(block_emb.shape, queries.shape, k, num_blocks)
  n = block_emb.shape[0] if num_blocks is None else num_blocks
  block_emb = jax.tree.map(jnp.asarray, block_emb)
  queries = jnp.asarray(queries, jnp.float32)
  if mesh is None or mesh.size == 1:
    return _top_k_of_rows(block_emb, queries, k, n, recall_target)
  axes = mesh.axis_names
  rows = PartitionSpec(axes)

  # check_vma=False: the output is equal everywhere, which an all-gather alone
  # does not prove to the checker.
  @functools.partial(
    jax.shard_map,
    mesh=mesh,
    in_specs=(rows, PartitionSpec()),
    out_specs=PartitionSpec(),
    check_vma=False,
  )
  def search(shard, queries):
    first = jax.lax.axis_index(axes) * shard.shape[0]
    found = _top_k_of_rows(shard, queries, k, n - first, recall_target)
    scores, ids = found[0], jnp.where(found[1] >= 0, found[1] + first, -1)
    scores = jax.lax.all_gather(scores, axes, axis=1, tiled=True)
    ids = jax.lax.all_gather(ids, axes, axis=1, tiled=True)
    return selection.best(
      scores.T, ids.T, k
    )  # shards come in order of their ids

  return search(block_emb, queries)


def _check_sizes(shape, queries_shape, k, num_blocks):
  if len(shape) != 2 or len(queries_shape) != 2 or shape[1] != queries_shape[1]:
    raise InputError(
      f"queries {list(queries_shape)} do not fit an index {list(shape)}: give"
      " [B, P] and [N, P] of one projected size P"
    )
  if k < 1:
    raise InputError(f"k={k}: search for at least one block")
  if num_blocks is not None and num_blocks > shape[0]:
    raise InputError(
      f"num_blocks={num_blocks}, and the index has {shape[0]} rows: give the"
      " index of this corpus"
    )


def _top_k_of_rows(rows, queries, k, num_valid, recall_target):
  """The top k of [N, P] rows on one device, the first num_valid of them."""
  b, platform = queries.shape[0], jax.default_backend()
  sizes = plan(rows.shape[0], b, k, platform)
  num_valid = jnp.minimum(num_valid, rows.shape[0])
  missing = max(sizes.chunk - rows.shape[0], 0)
  if missing:  # a tiny index; a large one is never copied
    rows = jax.tree.map(
      lambda x: jnp.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1))), rows
    )

  def search(tile):
    if recall_target is not None:
      return _approximately(rows, tile, k, num_valid, sizes, recall_target)
    return _by_buckets(rows, tile, k, num_valid, sizes, platform == "cpu")

  if sizes.tile >= b:
    return search(queries)
  tiles = jnp.pad(queries, ((0, -b % sizes.tile), (0, 0)))
  found = jax.lax.map(search, tiles.reshape(-1, sizes.tile, tiles.shape[1]))
  return jax.tree.map(lambda x: x.reshape(-1, k)[:b], found)


def _by_buckets(rows, queries, k, num_valid, sizes, bisect):
  """The top k of [N, P] rows by their best buckets."""
  n, b = rows.shape[0], queries.shape[0]

  def scan(_, first):
    scores = _scores_of_chunk(rows, queries, first, num_valid, sizes.chunk)
    scores = scores.reshape(-1, sizes.bucket, b)
    maxima = selection.fold(jnp.maximum, scores, 1)
    return None, (maxima, scores if sizes.keep else None)

  firsts = jnp.arange(0, n, sizes.chunk, dtype=jnp.int32)
  _, (maxima, scores) = jax.lax.scan(scan, None, firsts)
  maxima = maxima.reshape(-1, b)  # [N / bucket, B]
  m = min(k + _MARGIN, len(maxima))
  best = selection.places(maxima, m, bisect)  # [m, B]
  first = best * sizes.bucket // sizes.chunk * sizes.chunk  # of its chunk
  ids = jnp.minimum(first, n - sizes.chunk) + best * sizes.bucket - first
  ids = ids[:, None] + jnp.arange(sizes.bucket, dtype=jnp.int32)[:, None]
  if sizes.keep:
    scores = scores.reshape(-1, sizes.bucket, b)
    query = jnp.arange(b)[:, None, None]  # one after the other: fewer pages
    scores = scores[best.T[..., None], jnp.arange(sizes.bucket), query]
    scores = jax.lax.optimization_barrier(scores.reshape(b, -1)).T
  else:
    found = vectors.scores_of(rows, queries, ids.reshape(-1, b).T)
    valid = (ids >= first[:, None]) & (ids < num_valid)
    scores = jnp.where(valid, found.T.reshape(ids.shape), -jnp.inf)
  return selection.best(scores.reshape(-1, b), ids.reshape(-1, b), k, bisect)


def _approximately(rows, queries, k, num_valid, sizes, recall_target):
  """The top k by approx_max_k of each chunk, merged into a running list."""
  n, b = rows.shape[0], queries.shape[0]

  def scan(best, first):
    scores = _scores_of_chunk(rows, queries, first, num_valid, sizes.chunk)
    found, at = jax.lax.approx_max_k(
      scores.T,
      min(k, sizes.chunk),
      recall_target=recall_target,
      reduction_input_size_override=n,
    )
    scores = jnp.concatenate([best[0], found], axis=1)
    ids = at + jnp.minimum(first, n - sizes.chunk)
    return selection.best(
      scores.T, jnp.concatenate([best[1], ids], axis=1).T, k
    ), None

  none = jnp.full((b, k), -jnp.inf, jnp.float32), jnp.full((b, k), -1)
  firsts = jnp.arange(0, n, sizes.chunk, dtype=jnp.int32)
  return jax.lax.scan(scan, none, firsts)[0]


def _scores_of_chunk(rows, queries, first, num_valid, chunk):
  """Scores [chunk, B] of the rows from `first` on; -inf for those not valid.

  The last chunk begins earlier, and what it has of the one before is -inf.
  """
  start = jnp.minimum(first, rows.shape[0] - chunk)
  part = jax.tree.map(
    lambda x: jax.lax.dynamic_slice_in_dim(x, start, chunk), rows
  )
  scores = jnp.einsum(
    "NP,BP->NB",
    vectors.floats(part),
    queries,
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )
  row = start + jnp.arange(chunk, dtype=jnp.int32)[:, None]
  return jnp.where((row >= first) & (row < num_valid), scores, -jnp.inf)
