"""The gradients of a batch that is computed in parts, one after the other.

A part takes a part's memory. Means over the whole batch are those of the parts,
each by what it is a mean over: a part with few masked wordpieces counts as few,
and the gradient is that of the one big batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from realm_jax.train.parts import split_rows
from realm_jax.types import Array


class Mean(NamedTuple):
  """A figure of a batch, value (), that is a mean over `count` ()."""

  value: Array
  count: Array | float


# (rows, dropout key) -> gradients, and metrics by name: a Mean, or a number
# that counts the same for every part. "loss" weighs the gradients.
GradFn = Callable[[Any, Array], tuple[Any, dict[str, Array | Mean]]]


def gradients(
  grad_fn: GradFn, batch: Any, rng: Array, num_parts: int
) -> tuple[Any, dict[str, Array]]:
  """The gradients and metrics of a batch.

  Args:
    grad_fn: of any rows of it.
    batch: pytree of [B, ...]; every num_parts-th row makes a part, so that each
      device has its share of every part.
    rng: of the dropout.
    num_parts: a divisor of B.
  """
  if num_parts == 1:
    grads, metrics = grad_fn(batch, rng)
    return grads, {name: _mean(x).value for name, x in metrics.items()}

  def add(total, part):
    grads, metrics = grad_fn(*part)
    means = {name: _mean(x) for name, x in metrics.items()}
    count = means["loss"].count
    return jax.tree.map(lambda t, g: t + count * g, total, grads), means

  parts = split_rows(batch, num_parts), jax.random.split(rng, num_parts)
  shapes, _ = jax.eval_shape(grad_fn, *jax.tree.map(lambda x: x[0], parts))
  nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  total, means = jax.lax.scan(add, nothing, parts)
  counts = {name: jnp.maximum(m.count.sum(), 1) for name, m in means.items()}
  sums = {name: (m.value * m.count).sum() for name, m in means.items()}
  grads = jax.tree.map(lambda g: g / counts["loss"], total)
  return grads, {name: sums[name] / counts[name] for name in sums}


def _mean(x: Array | Mean) -> Mean:
  return x if isinstance(x, Mean) else Mean(x, 1.0)
