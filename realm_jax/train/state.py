"""What a training step changes: one struct for every task.

The index is not in here: it travels beside the state, because a refresh
replaces it as a whole while a step only updates the state.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct


@struct.dataclass
class TrainState:
  """Parameters with their optimizer.

  Attributes:
    step: () int32, how many steps these params have seen. An array, never a
      Python number: it is donated, sharded and checkpointed like the rest.
    params: {"embedder": ..., "encoder": ...}, one subtree a model.
    opt_state: the optimizer's, of the same paths as the params.
  """

  step: jax.Array
  params: Any
  opt_state: optax.OptState

  @classmethod
  def create(
    cls, params: Any, tx: optax.GradientTransformation
  ) -> "TrainState":
    """The state before the first step."""
    return cls(jnp.zeros((), jnp.int32), params, tx.init(params))

  def apply_gradients(
    self, grads: Any, tx: optax.GradientTransformation
  ) -> "TrainState":
    """The state after one step with these gradients."""
    updates, opt_state = tx.update(grads, self.opt_state, self.params)
    params = optax.apply_updates(self.params, updates)
    return TrainState(self.step + 1, params, opt_state)
