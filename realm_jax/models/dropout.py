"""Dropout whose backward pass finds the mask, a byte an element, in memory.

A compiler that fuses the comparison into both of its readers keeps the random
numbers instead: of threefry two words an element, more than the activations.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from realm_jax.types import Array


class Dropout(nn.Module):
  """flax.linen.Dropout, number for number.

  Attributes:
    rate: share of the elements that are 0; the others are scaled up.
  """

  rate: float

  @nn.compact
  def __call__(self, x: Array, deterministic: bool) -> Array:
    """[...] -> [...]."""
    if deterministic or self.rate == 0:
      return x
    if self.rate == 1:
      return jnp.zeros_like(x)
    kept = 1 - self.rate
    mask = jax.random.bernoulli(self.make_rng("dropout"), kept, x.shape)
    mask = jax.lax.optimization_barrier(mask)
    return jnp.where(mask, x / kept, jnp.zeros_like(x))
