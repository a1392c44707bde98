"""Exact maximum inner product search, on one device or with rows over a mesh.

The score matrix [B, N] is never whole in memory: the index is scanned in chunks
and a running top k is kept. In a chunk only the maximum of each small bucket of
rows is ranked; every row of the true top k lies in one of the k best buckets
(k better buckets would hold k better rows), so the result is exact.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from realm_jax.types import Array

_CHUNK = 16384  # rows scored at a time: 16384 x 64 queries = 4 MB of scores
_BUCKET = 32  # rows a maximum is taken over


def top_k(
  block_emb: Array,
  queries: Array,
  k: int,
  *,
  mesh: Mesh | None = None,
  num_blocks: int | None = None,
) -> tuple[Array, Array]:
  """Finds the k blocks of highest inner product with each query.

  Args:
    block_emb: [N, P]; with a mesh, rows sharded over all of its axes.
    queries: [B, P].
    k: how many.
    mesh: where the rows lie; None for one device.
    num_blocks: rows from this one on are padding and never found.

  Returns:
    scores [B, k] in float32, best first, and ids [B, k] in int32; equal scores
    go to the lower id. Where there are fewer than k blocks, score -inf, id -1.
  """
  n = block_emb.shape[0] if num_blocks is None else num_blocks
  if mesh is None or mesh.size == 1:
    return _top_k_of_rows(block_emb, queries, k, n)
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
    scores, ids = _top_k_of_rows(shard, queries, k, n - first)
    ids = jnp.where(ids >= 0, ids + first, -1)
    scores = jax.lax.all_gather(scores, axes, axis=1, tiled=True)
    ids = jax.lax.all_gather(ids, axes, axis=1, tiled=True)
    return _best(scores, ids, k)  # shards come in order of their ids

  return search(block_emb, queries)


def _top_k_of_rows(rows, queries, k, num_valid):
  """The top k of [N, P] rows on one device, the first num_valid of them."""
  chunk = min(_CHUNK, -(-rows.shape[0] // _BUCKET) * _BUCKET)
  if rows.shape[0] < chunk:  # a tiny index; a large one is never copied
    rows = jnp.pad(rows, ((0, chunk - rows.shape[0]), (0, 0)))
  n = rows.shape[0]

  def scan(best, first):
    start = jnp.minimum(first, n - chunk)  # the last chunk overlaps
    part = jax.lax.dynamic_slice_in_dim(rows, start, chunk)
    found = _top_k_of_chunk(part, queries, k, first - start, num_valid - start)
    ids = jnp.where(found[1] >= 0, found[1] + start, -1)
    scores = jnp.concatenate([best[0], found[0]], axis=1)
    return _best(scores, jnp.concatenate([best[1], ids], axis=1), k), None

  none = (
    jnp.full((queries.shape[0], k), -jnp.inf, jnp.float32),
    jnp.full((queries.shape[0], k), -1, jnp.int32),
  )
  return jax.lax.scan(scan, none, jnp.arange(0, n, chunk, dtype=jnp.int32))[0]


def _top_k_of_chunk(rows, queries, k, begin, end):
  """The top k of one chunk's rows begin..end-1, by its best buckets."""
  scores = jnp.einsum(
    "BP,NP->BN",
    queries,
    rows,
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )
  row = jnp.arange(rows.shape[0], dtype=jnp.int32)
  scores = jnp.where((row >= begin) & (row < end), scores, -jnp.inf)
  buckets = scores.reshape(*scores.shape[:-1], -1, _BUCKET)
  _, best = jax.lax.top_k(buckets.max(-1), min(k, buckets.shape[1]))
  best = jnp.sort(best, axis=-1)  # so that equal scores stay in order of ids
  scores = jnp.take_along_axis(buckets, best[..., None], axis=1)
  ids = best[..., None] * _BUCKET + jnp.arange(_BUCKET, dtype=jnp.int32)
  batch = scores.shape[0]
  return _best(scores.reshape(batch, -1), ids.reshape(batch, -1), k)


def _best(scores, ids, k):
  """The k best of [B, n] scores with their ids; the first of equals wins."""
  scores, place = jax.lax.top_k(scores, min(k, scores.shape[1]))
  ids = jnp.take_along_axis(ids, place, axis=1)
  return scores, jnp.where(jnp.isneginf(scores), -1, ids)
