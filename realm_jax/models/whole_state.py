"""A whole state of the reference: checked when read, completed when written."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from realm_jax.config import InputError
from realm_jax.models import convert
from realm_jax.models.convert import State
from realm_jax.models.encoder import RealmKnowledgeAugEncoder


def read_state(
  module: nn.Module,
  state: Mapping[str, np.ndarray],
  *,
  partial: bool = False,
  seed: int = 0,
) -> tuple[dict, State, tuple[str, ...]]:
  """Params of a module from tensors under the reference's names.

  Args:
    module: one of the five models.
    state: reference name -> array, of any float type.
    partial: draw what is missing, leave out what is too much.
    seed: of what is drawn.

  Returns:
    The params as float32 NumPy arrays, the tensors that no forward reads, and
    the names of those that were drawn.

  Raises:
    InputError: tensors are missing, too many, or of other shapes; all by name.
  """
  wanted, unread = convert.shapes(module), convert.unread_shapes(module)
  known = {**wanted, **unread}
  tied = convert.aliases(module)
  faults = {
    "missing": [n for n in wanted if n not in state],
    "left over": [n for n in state if n not in known and n not in tied],
    "of another shape": [
      f"{n} {np.shape(state[n])}, wanted {shape}"
      for n, shape in known.items()
      if n in state and np.shape(state[n]) != shape
    ],
  }
  missing = faults["missing"]
  if partial and len(missing) < len(wanted):
    faults["missing"] = faults["left over"] = []
  if any(faults.values()):
    raise InputError(_listed(faults, type(module).__name__, partial))
  _check_tied(module, state)
  whole = {n: np.asarray(state[n], np.float32) for n in known if n in state}
  if missing:
    drawn = convert.to_torch_state(module, _draw(module, jax.random.key(seed)))
    whole |= {name: drawn[name] for name in missing}
  params = convert.from_torch_state(module, whole)
  kept = {name: whole[name].copy() for name in unread if name in whole}
  return params, kept, tuple(missing)


def whole_state(
  module: nn.Module, params: Any, unread: Mapping[str, np.ndarray]
) -> State:
  """All tensors that the reference looks for in a file, tied ones once.

  Args:
    module: one of the five models.
    params: of the module.
    unread: tensors that no forward reads, from the file the model was read
      from; those that are not given are drawn as the reference draws them.
  """
  state, tied = convert.to_torch_state(module, params), convert.aliases(module)
  rng = np.random.default_rng(0)
  for name, shape in convert.unread_shapes(module).items():
    if name in unread:
      state[name] = unread[name]
    elif name.endswith("LayerNorm.weight"):
      state[name] = np.ones(shape, np.float32)
    elif name.endswith("bias"):
      state[name] = np.zeros(shape, np.float32)
    else:
      scale = module.config.initializer_range
      state[name] = np.float32(scale * rng.standard_normal(shape))
  return {n: np.ascontiguousarray(v) for n, v in state.items() if n not in tied}


@functools.partial(jax.jit, static_argnames="module")
def _draw(module: nn.Module, rng: jax.Array) -> dict:
  return convert.fresh_params(module, rng)


def _listed(faults: dict[str, list[str]], model: str, partial: bool) -> str:
  lists = [f"{k}: {', '.join(v)}" for k, v in faults.items() if v]
  if faults["of another shape"]:
    mend = "give the config they were made with"
  elif partial:
    mend = "none of it is this model's: give another kind"
  else:
    mend = "give the right kind, or partial=True to draw what is missing"
  return f"these tensors are not those of {model}; {'; '.join(lists)}: {mend}"


def _check_tied(module: nn.Module, state: Mapping[str, np.ndarray]) -> None:
  """Our head is tied to the word table; another one would be lost in silence."""
  if getattr(module.config, "tie_word_embeddings", True):
    return
  if not isinstance(module, RealmKnowledgeAugEncoder):
    return
  for name, of in convert.aliases(module).items():
    if name in state and not np.array_equal(state[name], state[of]):
      raise InputError(
        f"{name} is not {of} (config tie_word_embeddings=false): this head is"
        " always tied"
      )
