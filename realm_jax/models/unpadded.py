"""Unpadding: padded sequences as one run of tokens, so that padding costs nothing.

All of a layer but its attention looks at one token at a time. For that the
tokens of [R, T] sequences are packed into a run of S tokens, and laid out again
where they attend to each other. S is fixed when a program is compiled; of a
batch that holds more tokens the longest sequences are cut. Rows come in G
groups, each with a run of its own, so that over a mesh no token changes its
device.
"""

import math

import jax
import jax.numpy as jnp
from flax import struct

from realm_jax.types import Array


@struct.dataclass
class Layout:
  """Where the tokens of [R, T] sequences lie in G runs of S tokens.

  Attributes:
    mask: [R, T] whether there is a token that is kept.
    source: [G, S] the place in its group that each token of a run is from;
      R / G * T at the end of a run that is not full.
    slot: [G, R / G * T] where in its run the token of each place is; S where
      there is none.
  """

  mask: Array
  source: Array
  slot: Array

  def pack(self, x: Array) -> Array:
    """[R, T, ...] -> [G, S, ...]; 0 at the end of a run that is not full."""
    x = x.reshape(*self.slot.shape, *x.shape[2:])
    return _move(x, self.source, self.slot)

  def unpack(self, x: Array) -> Array:
    """[G, S, ...] -> [R, T, ...]; 0 where there is no token."""
    moved = _move(x, self.slot, self.source)
    return moved.reshape(*self.mask.shape, *x.shape[2:])


def lay_out(mask: Array, fill: float, num_groups: int = 1) -> Layout | None:
  """Finds room for the tokens of a batch.

  Args:
    mask: [R, T] 1 where there is a token.
    fill: S as a share of the places of a group, over 0; from 1 on, there is
      room for all and no layout is needed.
    num_groups: G, a divisor of R.

  Returns:
    The layout. Where a group holds more tokens than S, columns are left out
    from the last one on until they fit.
  """
  if fill >= 1:
    return None
  groups = mask.reshape(num_groups, -1, mask.shape[1]) > 0  # [G, R/G, T]
  places = groups.shape[1] * groups.shape[2]
  room = max(math.ceil(fill * places), 1)
  fits = jnp.cumsum(groups.sum(1), axis=1) <= room  # [G, T]
  kept = (groups & fits[:, None]).reshape(num_groups, places)
  count = jnp.cumsum(kept, axis=1)  # tokens up to each place
  ranks = jnp.arange(1, room + 1)
  source = jax.vmap(lambda c: jnp.searchsorted(c, ranks))(count)
  return Layout(
    mask=kept.reshape(mask.shape),
    source=source.astype(jnp.int32),
    slot=jnp.where(kept, count - 1, room),
  )


@jax.custom_vjp
def _move(x, there, back):
  """out[g, i] = x[g, there[g, i]], 0 past the end; `back` undoes it.

  No two tokens move to one place, so that the gradient is a gather as well.
  """

  def move(x, there):  # of a group
    return x.at[there].get(mode="fill", fill_value=0)

  return jax.vmap(move)(x, there)


def _move_forward(x, there, back):
  return _move(x, there, back), (there, back)


def _move_backward(indices, g):
  there, back = indices
  return _move(g, back, there), None, None


_move.defvjp(_move_forward, _move_backward)
