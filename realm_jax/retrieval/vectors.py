"""Rows of an index: of any float type or int8, scored, checked, ranked again."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from realm_jax import backend
from realm_jax.config import InputError
from realm_jax.retrieval import selection
from realm_jax.types import Array

_LANES = 8  # partial sums of a score
_PIECE = (
  4096  # rows scored at a time on a CPU, from a cache; elsewhere 32 times
)


@struct.dataclass
class Quantized:
  """Rows [N, P] in a quarter of the memory: row i is rows[i] * scale[i].

  Attributes:
    rows: [N, P] int8.
    scale: [N] float32.
  """

  rows: Array
  scale: Array

  @property
  def shape(self) -> tuple[int, ...]:
    """[N, P]."""
    return self.rows.shape


def quantize(block_emb: Array) -> Quantized:
  """Rounds each row of [N, P] to int8; its largest element becomes 127."""
  block_emb = jnp.asarray(block_emb, jnp.float32)
  scale = jnp.abs(block_emb).max(axis=1) / 127
  rows = block_emb / jnp.where(scale > 0, scale, 1)[:, None]
  return Quantized(jnp.round(rows).astype(jnp.int8), scale)


def rescore(
  block_emb: Array, queries: Array, ids: Array, k: int
) -> tuple[Array, Array]:
  """The k best of a short list, by other rows than those it was found with.

  `mips.top_k(quantize(rows), queries, 4 * k)`, then this with the float32 rows, is a
  search with a quarter of the memory traffic; what it misses is its recall.

  Args:
    block_emb: [N, P].
    queries: [B, P].
    ids: [B, R] of `mips.top_k`, R >= k; -1 for none.
    k: how many.

  Returns:
    scores [B, k] and ids [B, k] as of `mips.top_k`.
  """
  block_emb = jnp.asarray(block_emb)
  queries = jnp.asarray(queries, jnp.float32)
  ids = jnp.sort(ids, axis=1)  # equal scores in order of ids
  scores = scores_of(block_emb, queries, jnp.maximum(ids, 0))
  return selection.best(jnp.where(ids >= 0, scores, -jnp.inf).T, ids.T, k)


class NotFinite(InputError):
  """Numbers that no search can do anything with."""


def check_finite(name: str, values: Array) -> None:
  """Refuses NaN and infinite numbers; outside jit, as it looks at values.

  Raises:
    NotFinite: naming the first row of `values` [N, ...] that has one.
  """
  bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
  if bad.any():
    raise NotFinite(
      f"{name}: {int(bad.sum())} of {len(values)} rows are not finite, the first"
      f" is row {int(bad.argmax())}: embed them again with params that are"
    )


def scores_of(rows: Array | Quantized, queries: Array, ids: Array) -> Array:
  """Scores [B, R] of the rows ids [B, R], each summed in the same order.

  A piece of every query's list at a time: where lists ascend, the queries pass
  the rows together, and find in the cache what several of them want.
  """
  (b, r), p = ids.shape, queries.shape[1]
  lanes = math.gcd(p, _LANES)
  piece = _PIECE if backend.name() == "cpu" else 32 * _PIECE
  piece = min(max(piece // max(b, 1), 1), r)

  def score(ids):  # [B, piece]
    # The barrier: fused into the sum, the gather would be slower.
    emb = jax.lax.optimization_barrier(jax.tree.map(lambda x: x[ids], rows))
    products = floats(emb) * queries[:, None]
    return products.reshape(b, -1, p // lanes, lanes).sum(2).sum(2)

  ids = jnp.pad(ids, ((0, 0), (0, -r % piece))).reshape(b, -1, piece)
  scores = jax.lax.map(score, ids.swapaxes(0, 1)).swapaxes(0, 1)
  return scores.reshape(b, -1)[:, :r]


def floats(rows: Array | Quantized) -> Array:
  """Rows [..., P] in float32."""
  if isinstance(rows, Quantized):
    return rows.rows.astype(jnp.float32) * rows.scale[..., None]
  return rows.astype(jnp.float32)


def as_bfloat16(rows: Array | Quantized) -> Array | None:
  """Rows [N, P] in bfloat16, but for `scaled`; None if that would round them."""
  if isinstance(rows, Quantized):
    return rows.rows.astype(jnp.bfloat16)
  return rows if rows.dtype == jnp.bfloat16 else None


def scaled(scores: Array, rows: Array | Quantized) -> Array:
  """Scores [N, B] of what `as_bfloat16` gives, as those of the rows."""
  if isinstance(rows, Quantized):
    return scores * rows.scale[:, None]
  return scores
