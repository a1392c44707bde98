"""A batch embedded in parts: the memory of one part, the gradient of them all.

A contrastive loss wants every embedding of the batch at once, but not every
activation. Gao et al. (2021, arXiv 2101.06983) compute all embeddings without
keeping activations, then the loss and its gradient with respect to the
embeddings, then embed part after part again and pull that gradient back. To
differentiate a rematerialised loop is to do just this.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from realm_jax.types import Array, Inputs


def split_rows(tree: Any, num_parts: int) -> Any:
  """[B, ...] -> [num_parts, B / num_parts, ...].

  Part i has rows i, i + num_parts, ...: rows over a mesh stay where they are.
  """

  def split(x):
    return jnp.swapaxes(x.reshape(-1, num_parts, *x.shape[1:]), 0, 1)

  return jax.tree.map(split, tree)


def embed_in_parts(
  embed: Callable[[Inputs, Array], Array],
  inputs: Inputs,
  rng: Array,
  num_parts: int,
) -> Array:
  """Embeds a part of the rows after the other.

  Args:
    embed: (rows [R, T], key) -> [R, P].
    inputs: [B, T].
    rng: of dropout. A part has a key of its own, the same in both passes.
    num_parts: divides B; with 1 this is embed(inputs, rng).

  Returns:
    [B, P], in the order of the rows.
  """
  if num_parts == 1:
    return embed(inputs, rng)

  @jax.checkpoint
  def embed_part(part):
    return embed(*part)

  keys = jax.random.split(rng, num_parts)
  emb = jax.lax.map(embed_part, (split_rows(inputs, num_parts), keys))
  return jnp.swapaxes(emb, 0, 1).reshape(-1, emb.shape[-1])


def mean_of_parts(
  figures: Callable[..., dict], arrays: tuple[Array, ...], num_parts: int
) -> dict:
  """figures(*arrays) of each part's rows, and their mean over the parts."""
  if num_parts == 1:
    return figures(*arrays)
  of_parts = jax.vmap(figures)(*split_rows(arrays, num_parts))
  return jax.tree.map(jnp.mean, of_parts)
