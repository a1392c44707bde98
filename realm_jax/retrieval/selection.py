"""The k largest of each column, for a k of tens or of thousands.

XLA's TopK is fast where k is small. For thousands it keeps a heap on a CPU, a
comparison that the processor can't foresee for each of k log k steps. There,
the k-th largest is found by bisection instead (a pass counts, which
vectorises), the places of the chosen are read off a bit mask, and only the
chosen are sorted.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from realm_jax.types import Array

MANY = 256  # from this k on, bisection is faster on a CPU
WORD = 32  # places in a word of the bit mask
_SLABS = 8  # parts that are counted beside each other
_GROUP = 32  # values that stand for each other in `places_by_groups`
_FEW = 4096  # values that are ranked at once


def largest(values: Array, k: int, bisect: bool) -> tuple[Array, Array]:
  """The k largest of each column, best first.

  Args:
    values: [W, B] float32, no NaN, W >= k.
    k: how many.
    bisect: whether by bisection where k is large; the result is the same.

  Returns:
    values [k, B], and their places [k, B] in int32; the first of equals first.
  """
  if not (bisect and k >= MANY):
    found, at = jax.lax.top_k(values.T, k)
    return found.T, at.T
  at = _places(values, k)
  found = jnp.take_along_axis(values, at, axis=0)
  # As integers: floats are compared with an eye on NaN, three times slower.
  worst_first = (~_ordered(found)).T, at.T  # [B, k]
  _, at = jax.lax.sort(worst_first, dimension=1, num_keys=1, is_stable=True)
  return jnp.take_along_axis(values, at.T, axis=0), at.T


def places(values: Array, k: int, bisect: bool) -> Array:
  """As `largest`, the places only, ascending: [k, B]."""
  if bisect and k >= MANY:
    return _places(values, k)
  return jnp.sort(largest(values, k, bisect)[1], axis=0)


def places_by_groups(values: Array, k: int) -> Array:
  """As `places`, by the maxima of groups: for many values and a small k.

  Each of the k largest is in one of the k groups with the largest maxima.
  """
  w, b = values.shape
  if w <= max(_GROUP * k, _FEW):
    return places(values, k, False)
  fill = ((0, -w % _GROUP), (0, 0))
  groups = jnp.pad(values, fill, constant_values=-jnp.inf)
  groups = groups.reshape(-1, _GROUP, b)
  at = places_by_groups(groups.max(1), k)[:, None] * _GROUP  # [k, 1, B]
  at = at + jnp.arange(_GROUP, dtype=jnp.int32)[:, None]
  at = at.reshape(-1, b)
  near = jnp.take_along_axis(groups.reshape(-1, b), at, axis=0)
  return jnp.take_along_axis(at, places(near, k, False), axis=0)


def best(
  scores: Array, ids: Array, k: int, bisect: bool = False
) -> tuple[Array, Array]:
  """The k best of [W, B] scores with their ids, [B, k]; the first of equals.

  Where there are fewer than k that are not -inf: -inf and -1."""
  scores, at = largest(scores, min(k, len(scores)), bisect)
  ids = jnp.where(jnp.isneginf(scores), -1, jnp.take_along_axis(ids, at, 0))
  fill = ((0, k - len(ids)), (0, 0))
  scores = jnp.pad(scores, fill, constant_values=-jnp.inf)
  return scores.T, jnp.pad(ids, fill, constant_values=-1).T


def edge(values: Array, k: int, slack: int) -> Array:
  """A number [B] that k to k + slack of each column [W, B] reach.

  More, where the k-th largest has many equals."""
  keys = _ordered(values)
  low, high = keys.min(0), keys.max(0) + 1
  return _floats(_edge(_padded(keys), k, low, high, slack))


def words(chosen: Array) -> Array:
  """True and false [W, B] as bits [W / 32, B] in uint32, the first lowest."""
  bits = jnp.arange(WORD, dtype=jnp.uint32)[:, None]
  bits = chosen.reshape(-1, WORD, chosen.shape[1]).astype(jnp.uint32) << bits
  return fold(jnp.bitwise_or, bits, 1)


def fold(combine: Callable, x: Array, axis: int) -> Array:
  """Reduces a short axis; XLA:CPU vectorises this, and not its own reduce."""
  parts = [
    jax.lax.index_in_dim(x, i, axis, keepdims=False)
    for i in range(x.shape[axis])
  ]
  return functools.reduce(combine, parts)


def _places(values, k):
  keys = _padded(_ordered(values))
  edge = _edge(keys, k, keys.min(0), keys.max(0) + 1)
  # Of those that equal the edge, as many as are missing, the first ones first.
  equal, at = keys == edge, -jnp.arange(len(keys), dtype=jnp.int32)[:, None]
  least = jnp.full_like(edge, -len(keys))
  at = jnp.where(equal, at, least - 1)
  last = _edge(at, k - _count(keys, edge + 1), least, jnp.ones_like(edge))
  # XLA fuses into every use what it can, and computes it anew for each; the
  # barriers here and below keep what is used often.
  chosen = words((keys > edge) | (at >= last))
  return places_of_bits(jax.lax.optimization_barrier(chosen), k)


def _padded(keys):
  """[W, B] int32 to whole words, with what is below every number."""
  fill = ((0, -len(keys) % WORD), (0, 0))
  return jnp.pad(keys, fill, constant_values=jnp.iinfo(jnp.int32).min)


def _ordered(values):
  """float32 as int32 in the same order."""
  return _flip(jax.lax.bitcast_convert_type(values, jnp.int32))


def _floats(keys):
  """Undoes `_ordered`."""
  return jax.lax.bitcast_convert_type(_flip(keys), jnp.float32)


def _flip(bits):
  return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _edge(values, k, low, high, slack=0):
  """The k-th largest of each column, or a lower edge with k at or above it.

  Args:
    values: [W, B] int32.
    k: [B] or one for all.
    low, high: [B]; at least k are >= low, fewer are >= high.
    slack: so many more than k at or above it are as good.
  """

  def narrow(bounds):
    low, high = bounds
    middle = (low & high) + ((low ^ high) >> 1)  # no overflow
    count = _count(values, middle)
    low = jnp.where(count >= k, middle, low)
    close = (count >= k) & (count <= k + slack)
    high = jnp.where(count < k, middle, high)
    return low, jnp.where(close, middle + 1, high)

  def is_open(bounds):
    return (bounds[1] - bounds[0] != 1).any()

  high = jnp.where(_count(values, low) == k, low + 1, high)
  return jax.lax.while_loop(is_open, narrow, (low, high))[0]


def _count(values, edge):
  """How many of each column of [W, B] are >= edge [B]; W of whole slabs."""
  slabs = values.reshape(_SLABS, -1, values.shape[1])
  return functools.reduce(
    jnp.add, [(slab >= edge).astype(jnp.int32) for slab in slabs]
  ).sum(0)


def places_of_bits(words: Array, k: int) -> Array:
  """The places of the set bits of `words`, [k, B], ascending; any after them."""
  b = words.shape[1]
  counts = jax.lax.population_count(words).astype(jnp.int32)  # [W / 32, B]
  first = jnp.cumsum(counts, axis=0) - counts  # the slot of a word's first bit
  index = jnp.broadcast_to(jnp.arange(len(words))[:, None], words.shape)
  # Of words with the same first slot only the last has a bit.
  word = jnp.zeros((k, b), jnp.int32)
  word = word.at[first, jnp.arange(b)].max(index, mode="drop")
  word = jax.lax.cummax(word, axis=0)  # [k, B]
  rank = jnp.arange(k)[:, None] - jnp.take_along_axis(first, word, axis=0)
  at = word * WORD + _bit(jnp.take_along_axis(words, word, axis=0), rank)
  return jax.lax.optimization_barrier(at)


def _bit(word, rank):
  """The place of the set bit that has `rank` set bits below it."""
  place = jnp.zeros_like(rank)
  for half in (16, 8, 4, 2, 1):
    low = word & jnp.uint32((1 << half) - 1)
    count = jax.lax.population_count(low).astype(jnp.int32)
    up = rank >= count
    place = place + half * up
    rank = jnp.where(up, rank - count, rank)
    word = jnp.where(up, word >> half, low)
  return place
