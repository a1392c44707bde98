"""The arguments of the reference's forwards: checked, and filled in.

What torch refuses, JAX may pass in silence: an index beyond its table reads a
NaN or the last row, and rows of unequal number are broadcast. So ids are
compared with their tables here, where they can be seen (not while tracing).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from realm_jax.config import InputError, RealmConfig
from realm_jax.models import bert
from realm_jax.types import Array, Inputs


def checked_inputs(
  config: RealmConfig,
  input_ids: Array | None,
  attention_mask: Array | None,
  token_type_ids: Array | None,
  position_ids: Array | None,
  inputs_embeds: Array | None,
) -> Inputs:
  """make_inputs of what the model's tables can hold.

  Raises:
    InputError: an id outside its table, a sequence that is longer than the
      position table, or sequences that are no matrix [R, T].
  """
  check_ids("input_ids", input_ids, config.vocab_size)
  check_ids("token_type_ids", token_type_ids, config.type_vocab_size)
  check_ids("position_ids", position_ids, config.max_position_embeddings)
  inputs = bert.make_inputs(
    input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds
  )
  ids_like = inputs_embeds[..., 0] if input_ids is None else input_ids
  shape = np.shape(ids_like)
  if len(shape) != 2:
    raise InputError(f"sequences of shape {shape}: wanted [rows, tokens]")
  most = config.max_position_embeddings
  if position_ids is None and shape[1] > most:
    raise InputError(
      f"sequences of {shape[1]} tokens are longer than the position table:"
      f" max_position_embeddings={most}; cut them"
    )
  return inputs


def check_ids(name: str, ids: Any, size: int, ignored: int = 0) -> None:
  """Refuses ids outside [0, size) other than `ignored`, unless traced."""
  if ids is None or isinstance(ids, jax.core.Tracer):
    return
  ids = np.asarray(jax.device_get(ids))
  wrong = ids[((ids < 0) | (ids >= size)) & (ids != ignored)]
  if wrong.size:
    raise InputError(f"{name} holds {wrong[0]}: wanted 0 to {size - 1}")


def merge_axes(x: Array | None, ndim: int) -> Array | None:
  """Merges the first two axes where there are more than `ndim` of them."""
  return x if np.ndim(x) <= ndim else merge_first_axes(x)


def merge_first_axes(x: Array | None) -> Array | None:
  """[A, B, ...] -> [A * B, ...]; None stays."""
  return None if x is None else jnp.reshape(x, (-1, *np.shape(x)[2:]))


def wanted(
  config: RealmConfig,
  output_attentions: bool | None,
  output_hidden_states: bool | None,
) -> tuple[bool, bool]:
  """Whether attentions and hidden states are asked for; the config decides
  where the caller doesn't."""
  return (
    config.output_attentions
    if output_attentions is None
    else output_attentions,
    config.output_hidden_states
    if output_hidden_states is None
    else output_hidden_states,
  )


def returned(config: RealmConfig, output: Any, return_dict: bool | None) -> Any:
  """The output as a struct, or as the reference's tuple."""
  if return_dict is None:
    return_dict = config.use_return_dict
  return output if return_dict else output.to_tuple()
