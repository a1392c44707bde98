"""Exact maximum inner product search, on one device or with rows over a mesh.

Scores are float32 sums; `retrieval.scan` says how the best are found, and
`retrieval.hopper` has a kernel for some GPUs. Equal rows have equal scores and
come in order of their ids.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from realm_jax import backend
from realm_jax.config import InputError
from realm_jax.retrieval import hopper, scan, selection, vectors
from realm_jax.types import Array

_MANY_ROWS = 2**17  # far more than a cache has
_FEWEST = 8  # queries of a tile on a CPU, of many rows
_MOST_ROUNDED = 128  # k for which some 2 k buckets are few rows


class Plan(NamedTuple):
  """Sizes of a search.

  Attributes:
    way: "whole", "buckets" or "threshold", see `retrieval.scan`.
    tile: queries searched at a time.
    chunk: rows scored at a time, a multiple of bucket.
    bucket: consecutive rows that are summed up, by a maximum or a word of bits.
    step: one of so many rows is in the sample that gives the threshold.
  """

  way: str
  tile: int
  chunk: int
  bucket: int
  step: int = 0


def plan(n: int, b: int, k: int, platform: str) -> Plan:
  """Chooses the sizes for n rows, b queries and k on "cpu", "gpu" or "tpu".

  way: all scores of a tile where k is more than 1/16 of the rows; a threshold
    for hundreds and thousands on a CPU; else buckets.
  step: a row of the sample costs 1/11 of a row in the list, and the list has k
    and some 8 deviations of what the sample counts: 16 (k n)^(1/3) rows.
  """
  if 16 * k > n:
    return _plan("whole", n, b, 1, platform)
  if platform == "cpu" and k >= selection.MANY:
    step = max(round(n / (16 * math.cbrt(k * n))), 2)
    return _plan("threshold", n, b, selection.WORD, platform, step)
  return plan_of_buckets(n, b, k, platform)


def plan_of_buckets(n: int, b: int, k: int, platform: str) -> Plan:
  """As `plan`, by buckets for any k.

  bucket: a query ranks n / bucket maxima and gathers k * bucket rows, one of
    which costs as much as some 20 maxima: sqrt(n / 20 k), as a power of two.
  """
  bucket = 2 ** round(math.log2(max(n / (20 * k), 1)) / 2)
  return _plan("buckets", n, b, min(max(bucket, 8), 256), platform)


def _plan(way, n, b, bucket, platform, step=0):
  """The plan with its tile and chunk.

  tile: 128 queries on a CPU, enough for the product to be its fastest, and of
    many rows 8 at least, which take less than half of the time that one takes;
    512 elsewhere; fewer where what is held of each bucket would be more than 32 MB,
    or 16 MB of bits (selection takes twice that besides, the ranks of bits five
    times). Off a CPU four numbers for every row may be held where that is more:
    a sixteenth of rows of 128 numbers of 16 bits, which the device holds
    anyway, and which each tile reads from its memory once.
  chunk: on a CPU its scores are 512 kB, half a core's L2 cache; elsewhere 128
    MB, for the product to fill the device.
  """
  on_cpu = platform == "cpu"
  held = 2**22 if way == "threshold" else 2**23
  held = held if on_cpu else max(held, 4 * n)
  most = min(128 if on_cpu else 512, max(held * bucket // n, 1))
  tile = -(-b // max(-(-b // most), 1))  # tiles of even sizes
  if on_cpu and n >= _MANY_ROWS:
    tile = max(tile, min(most, _FEWEST))
  chunk = (2**17 if on_cpu else 2**25) // max(tile, 1) // bucket * bucket
  chunk = n if way == "whole" else max(min(chunk, n // bucket * bucket), bucket)
  return Plan(way, tile, chunk, bucket, step)


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
  (n, _), b, platform = rows.shape, queries.shape[0], backend.name()
  sizes = plan(n, b, k, platform)
  num_valid = jnp.minimum(num_valid, n)

  def by_buckets(queries, sizes):
    def search(tile):
      return scan.by_buckets(rows, tile, k, num_valid, sizes, platform == "cpu")

    return _in_tiles(search, queries, sizes.tile)

  def by_rounded(tile):
    rest = plan_of_buckets(n, len(tile), k, platform)
    return scan.by_rounded(
      rows,
      tile,
      k,
      num_valid,
      hopper.bucket_maxima,
      lambda: by_buckets(tile, rest),
    )

  def search(tile):
    if recall_target is not None:
      return scan.approximately(rows, tile, k, num_valid, sizes, recall_target)
    if sizes.way == "whole":
      return scan.whole(rows, tile, k, num_valid, platform == "cpu")
    if sizes.way == "buckets":
      return by_buckets(tile, sizes)
    rest = plan_of_buckets(n, -(-len(tile) // 8), k, platform)
    return scan.by_threshold(
      rows, tile, k, num_valid, sizes, lambda: by_buckets(tile, rest)
    )

  if recall_target is None and k <= _MOST_ROUNDED and hopper.takes(rows):
    return _in_tiles(by_rounded, queries, min(b, hopper.QUERIES))
  return _in_tiles(search, queries, sizes.tile)


def _in_tiles(search, queries, tile):
  """Maps `search` over tiles of the queries [B, P]."""
  b, p = queries.shape
  # Filled up by the last query: one of zeros would find all rows equal.
  tiles = jnp.pad(queries, ((0, -b % tile), (0, 0)), mode="edge")
  if tile >= b:
    found = search(tiles)
  else:
    found = jax.lax.map(search, tiles.reshape(-1, tile, p))
  return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[:b], found)
