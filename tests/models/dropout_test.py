"""Dropout beside Flax's, and what its backward pass keeps."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.models.dropout import Dropout

_X = np.random.default_rng(0).standard_normal((3, 5, 700)).astype(np.float32)


class _Two(nn.Module):
  """Two of a kind in one module, so that they draw by their names."""

  kind: type
  rate: float

  @nn.compact
  def __call__(self, x, deterministic=False):
    drop = self.kind(self.rate, name="Dropout_0")
    x = drop(x, deterministic=deterministic)
    return drop(jnp.sin(x), deterministic=deterministic)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_as_of_flax(rate):
  rngs = {"dropout": jax.random.key(7)}

  def value_and_gradient(kind):
    module = _Two(kind, rate)
    return jax.value_and_grad(
      lambda x: (module.apply({}, x, rngs=rngs) * np.arange(700)).sum()
    )(_X)

  jax.tree.map(
    np.testing.assert_array_equal,
    value_and_gradient(Dropout),
    value_and_gradient(nn.Dropout),
  )
  same = _Two(Dropout, rate).apply({}, _X, deterministic=True)
  np.testing.assert_allclose(same, np.sin(_X), rtol=1e-6)


@pytest.mark.skipif(
  jax.__version_info__ < (0, 11),
  reason="XLA for CPU of older versions takes the barrier away",
)
def test_keeps_a_byte_an_element():
  rate, layers, size = 0.1, 6, 512

  def kept(kind):
    def loss(x):
      for i in range(layers):
        rngs = {"dropout": jax.random.key(i)}
        x = kind(rate).apply({}, jnp.sin(x), deterministic=False, rngs=rngs)
        x = x @ x
      return x.sum()

    x = jax.ShapeDtypeStruct((size, size), jnp.float32)
    compiled = jax.jit(jax.grad(loss)).lower(x).compile()
    return compiled.memory_analysis().temp_size_in_bytes / size**2

  ours, flax = kept(Dropout), kept(nn.Dropout)
  assert flax - ours > 0.7 * 7 * layers
