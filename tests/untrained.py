"""Params that nobody trained, drawn by their shapes: no program is compiled."""

import functools

import jax
import numpy as np


def params(module, *args, method=None, **more) -> dict:
  """Those of a module that is called so: norms of scale 1, biases 0, the rest
  normal with standard deviation `config.initializer_range`."""
  init = functools.partial(module.init, method=method, **more)
  shapes = jax.eval_shape(init, jax.random.key(0), *args)["params"]
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key in ("scale", "bias"):
      return np.full(leaf.shape, path[-1].key == "scale", leaf.dtype)
    values = module.config.initializer_range * rng.standard_normal(leaf.shape)
    return values.astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes)
