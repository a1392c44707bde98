"""The ways through the rows of one device to the k best of each query.

The score matrix [B, N] is not in memory, but where k is a good part of N
(`whole`). A scan over chunks of rows scores them, and sums up each bucket of
consecutive rows while the scores are in the cache.

`by_buckets` keeps a bucket's maximum. Every row of the top k lies in one of the
k best buckets: each of k better buckets would hold a better row, and of equal
buckets the lower one goes first, as its rows do. So one selection over buckets
in the end, and one over the rows of the k best, find the top k.

`by_rounded` takes the maxima from a kernel (retrieval/hopper.py) whose queries
are rounded, and more than k buckets. What rounding hid in all other buckets has
a bound; where that reaches the k-th best found, the search is done anew.

`by_threshold` is for a k of thousands, where the rows of k buckets would be too
many. A sample of the rows gives a score that most likely somewhat more than k
rows reach; one bit is kept of each row, whether it does; and the rows that do
are the list. Where they are fewer than k, or more than the list holds (by bad
luck, or because many rows are equal), the search is done by buckets.

A score in the scan and the score of a row in the list are summed in different
orders: rows whose scores differ by less than the rounding of such a sum may
change places, and at the end of the list one may be there for the other;
`_MARGIN` more than k are looked at, so that it takes several such at once.
Where products are exact (whole numbers), so is everything.
"""

import math

import jax
import jax.numpy as jnp

from realm_jax import backend
from realm_jax.retrieval import hopper, selection, vectors

_MARGIN = 2  # beyond k, against rounding
_PARTLY = 2  # buckets with rows that don't count may take a place
_DEVIATIONS = 4  # of what a sample counts; both ways, one in 10,000 is beyond
_ROUNDING = 2**-15  # of a float32 sum of 128 products, of their lengths


def whole(rows, queries, k, num_valid, fast_bisect):
  """The top k of [N, P] rows by all their scores."""
  n, b = rows.shape[0], queries.shape[0]
  scores = _scores(rows, queries)
  ids = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32)[:, None], (n, b))
  scores = jnp.where(ids < num_valid, scores, -jnp.inf)
  return selection.best(scores, ids, k, fast_bisect)


def by_buckets(rows, queries, k, num_valid, sizes, bisect):
  """The top k of [N, P] rows by their best buckets."""
  n, b = rows.shape[0], queries.shape[0]

  def scan(_, first):
    scores, valid = _chunk(rows, queries, first, num_valid, sizes.chunk)
    scores = scores.reshape(-1, sizes.bucket, b)
    valid = valid.reshape(-1, sizes.bucket).any(1)[:, None]
    maxima = selection.fold(jnp.maximum, scores, 1)
    return None, jnp.where(valid, maxima, -jnp.inf)

  maxima = _over_chunks(scan, n, sizes.chunk).reshape(-1, b)  # [N / bucket, B]
  m = min(k + _MARGIN + _PARTLY, len(maxima))
  at = selection.places(maxima, m, bisect)[:, None] * sizes.bucket  # [m, 1, B]
  at = at + jnp.arange(sizes.bucket, dtype=jnp.int32)[:, None]
  ids, valid = _in_chunks(at.reshape(-1, b), n, sizes.chunk, num_valid)
  return _best_of_list(rows, queries, k, ids, valid, bisect)


def by_rounded(rows, queries, k, num_valid, maxima_of, otherwise):
  """The top k of [N, P] rows in bfloat16 by maxima for rounded queries.

  Args:
    maxima_of: as `hopper.bucket_maxima`.
    otherwise: gives the result where rounding may hide some of it.
  """
  b, bucket = queries.shape[0], hopper.BUCKET
  rounded = _rounded(queries)
  maxima, longest = maxima_of(rows, rounded.astype(jnp.bfloat16))
  first = jnp.arange(len(maxima), dtype=jnp.int32)[:, None] * bucket
  maxima = jnp.where(first < num_valid, maxima, -jnp.inf)
  at = selection.places_by_groups(maxima, min(2 * k + 8, len(maxima)))  # [m, B]
  edge = jnp.take_along_axis(maxima, at, axis=0).min(0)  # no other is above
  ids = at[:, None] * bucket + jnp.arange(bucket, dtype=jnp.int32)[:, None]
  ids = ids.reshape(-1, b)
  found = _best_of_list(rows, queries, k, ids, ids < num_valid, False)
  hidden = jnp.linalg.norm(queries - rounded, axis=1)
  hidden += _ROUNDING * jnp.linalg.norm(queries, axis=1)
  complete = (edge + hidden * longest < found[0][:, -1]) | jnp.isneginf(edge)
  return jax.lax.cond(complete.all(), lambda: found, otherwise)


def by_threshold(rows, queries, k, num_valid, sizes, otherwise):
  """The top k of [N, P] rows by the rows that reach a threshold.

  Args:
    otherwise: gives the result where the threshold does not.
  """
  n, b, expected = rows.shape[0], queries.shape[0], k / sizes.step
  rank = math.ceil(expected + _DEVIATIONS * math.sqrt(expected)) + 2
  slack = rank // 32  # spares half of the passes that find it
  most = rank + slack + _DEVIATIONS * math.sqrt(rank + slack)
  size = math.ceil(sizes.step * most)
  sample = _sample(rows, queries, num_valid, sizes.step)
  threshold = selection.edge(sample, rank, slack)

  def scan(_, first):
    scores, valid = _chunk(rows, queries, first, num_valid, sizes.chunk)
    return None, selection.words(scores >= threshold) & selection.words(valid)

  words = _over_chunks(scan, n, sizes.chunk).reshape(-1, b)
  count = jax.lax.population_count(words).astype(jnp.int32).sum(0)

  def listed():
    at = selection.places_of_bits(words, size)
    ids, valid = _in_chunks(at, n, sizes.chunk, num_valid)
    in_list = jnp.arange(size)[:, None] < count
    return _best_of_list(rows, queries, k, ids, in_list & valid, True)

  fits = ((count >= k + _MARGIN) & (count <= size)).all()
  return jax.lax.cond(fits, listed, otherwise)


def approximately(rows, queries, k, num_valid, sizes, recall_target):
  """The top k by approx_max_k of each chunk, merged into a running list."""
  n, b = rows.shape[0], queries.shape[0]

  def scan(best, first):
    scores, valid = _chunk(rows, queries, first, num_valid, sizes.chunk)
    found, at = jax.lax.approx_max_k(
      jnp.where(valid, scores, -jnp.inf).T,
      min(k, sizes.chunk),
      recall_target=recall_target,
      reduction_input_size_override=n,
    )
    scores = jnp.concatenate([best[0], found], axis=1)
    ids = jnp.concatenate([best[1], _ids(at + first, n, sizes.chunk)], axis=1)
    return selection.best(scores.T, ids.T, k), None

  none = jnp.full((b, k), -jnp.inf, jnp.float32), jnp.full((b, k), -1)
  firsts = jnp.arange(0, n, sizes.chunk, dtype=jnp.int32)
  return jax.lax.scan(scan, none, firsts)[0]


def _over_chunks(scan, n, chunk):
  return jax.lax.scan(scan, None, jnp.arange(0, n, chunk, dtype=jnp.int32))[1]


def _chunk(rows, queries, first, num_valid, chunk):
  """Scores [chunk, B] of the rows from `first` on, and which count [chunk, 1].

  The last chunk begins earlier: what it has of the one before doesn't count.
  """
  start = jnp.minimum(first, rows.shape[0] - chunk)
  part = jax.tree.map(
    lambda x: jax.lax.dynamic_slice_in_dim(x, start, chunk), rows
  )
  row = start + jnp.arange(chunk, dtype=jnp.int32)[:, None]
  return _scores(part, queries), (row >= first) & (row < num_valid)


def _scores(rows, queries):
  """Scores [N, B].

  Rows of 8 or 16 bits are multiplied as they are off a CPU, at bfloat16's
  speed, by two halves of each query: 16 of the 24 bits that its numbers have.
  """
  coarse = None if backend.name() == "cpu" else vectors.as_bfloat16(rows)
  if coarse is None:
    return _product(vectors.floats(rows), queries)
  high = _rounded(queries)
  halves = (half.astype(coarse.dtype) for half in (high, queries - high))
  return vectors.scaled(sum(_product(coarse, half) for half in halves), rows)


def _rounded(queries):
  """To what bfloat16 holds; a cast there and back a compiler may leave out."""
  return jax.lax.reduce_precision(queries, exponent_bits=8, mantissa_bits=7)


def _product(rows, queries):
  return jnp.einsum(
    "NP,BP->NB",
    rows,
    queries,
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )


def _ids(at, n, chunk):
  """The row ids of places in the chunks, one after the other."""
  first = at // chunk * chunk
  return jnp.minimum(first, n - chunk) + at - first


def _in_chunks(at, n, chunk, num_valid):
  """The row ids of places in the chunks, and which of them count."""
  ids = _ids(at, n, chunk)
  return ids, (ids >= at // chunk * chunk) & (ids < num_valid)


def _best_of_list(rows, queries, k, ids, valid, bisect):
  """The top k of the rows ids [R, B] where valid."""
  near = jnp.minimum(ids, rows.shape[0] - 1)
  scores = vectors.scores_of(rows, queries, near.T).T
  return selection.best(jnp.where(valid, scores, -jnp.inf), ids, k, bisect)


def _sample(rows, queries, num_valid, step):
  """Scores [N / step, B] of one row of every `step`, at random."""
  at = jnp.arange(rows.shape[0] // step, dtype=jnp.uint32)
  inside = (at * jnp.uint32(2654435769) >> 16) % step  # Fibonacci hashing
  at = (at * step + inside).astype(jnp.int32)
  scores = _scores(jax.tree.map(lambda x: x[at], rows), queries)
  return jnp.where(at[:, None] < num_valid, scores, -jnp.inf)
