"""In what numbers a model computes.

Params, softmax, norms and losses are float32. With config.compute_dtype
"bfloat16" matrix products take bfloat16 operands and what lies between them is
bfloat16; the gradient of a weight is summed in the weight's own type all the
same, over the tokens of a device and over the devices.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from realm_jax import backend
from realm_jax.config import RealmConfig
from realm_jax.types import Array


def compute_type(config: RealmConfig):
  """bfloat16, or None: what the params are."""
  return jnp.bfloat16 if config.compute_dtype == "bfloat16" else None


def precise(x: Array) -> Array:
  """x in float32, or what is more."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Dense(nn.Module):
  """As nn.Dense, see `affine`.

  Attributes:
    features: E.
    kernel_init: of the kernel [D, E].
    out: see `affine`.
  """

  features: int
  kernel_init: nn.initializers.Initializer
  out: jnp.dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., D] -> [..., E]."""
    shape = (x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape)
    bias = self.param("bias", nn.initializers.zeros, shape[1:])
    return affine(x, kernel, bias, self.out)


def layer_norm(eps: float, name: str | None, dtype=None) -> nn.LayerNorm:
  """LayerNorm as torch computes it (two-pass variance), in float32.

  Args:
    eps: added to the variance.
    name: of the module.
    dtype: of what it returns; None: of the params.
  """
  return nn.LayerNorm(
    epsilon=eps, use_fast_variance=False, name=name, dtype=dtype
  )


def affine(x: Array, kernel: Array, bias: Array, out=None) -> Array:
  """x [..., D], kernel [D, ...], bias [...] -> x kernel + bias.

  The operands of the product are in x's type, and so is the sum unless `out`
  says otherwise.
  """
  if x.dtype == kernel.dtype:
    return jnp.tensordot(x, kernel, 1) + bias
  out = x.dtype if out is None else out
  return (_mixed(out, x, kernel) + bias).astype(out)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mixed(out, x, kernel):
  """The product in x's type, its gradient for the kernel in the kernel's."""
  kernel = kernel.astype(x.dtype)
  return _product(x, kernel, ((x.ndim - 1,), (0,)), out)


def _mixed_forward(out, x, kernel):
  return _mixed(out, x, kernel), (x, kernel)


def _mixed_backward(out, saved, g):
  del out
  x, kernel = saved
  g = g.astype(x.dtype)
  out_axes = tuple(range(x.ndim - 1, g.ndim)), tuple(range(1, kernel.ndim))
  dx = jnp.tensordot(g, kernel.astype(x.dtype), out_axes)
  rows = tuple(range(x.ndim - 1))
  return dx, _product(x, g, (rows, rows), kernel.dtype)


def _product(a, b, summed, out):
  """Of two of one type, in `out`, over the axes `summed` of either."""
  if backend.name() == "cpu":  # has products of one type alone
    a, b = a.astype(out), b.astype(out)
  return jax.lax.dot_general(
    a, b, (summed, ((), ())), preferred_element_type=out
  )


_mixed.defvjp(_mixed_forward, _mixed_backward)
