"""BERT's Adam, which is not optax.adamw.

The original (bert/optimization.py, used by orqa and realm) corrects no bias,
takes eps = 1e-6, decays weights outside of the moments and off norms and
biases, clips the global norm first, and decays the learning rate linearly by a
clock that starts at step 0, not at the end of the warm-up.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from realm_jax.config import InputError

_NOT_DECAYED = re.compile(r"norm|bias", re.IGNORECASE)


def bert_adam(
  learning_rate: float,
  warmup_steps: int,
  num_steps: int,
  *,
  b1: float,
  b2: float,
  eps: float,
  weight_decay: float,
  clip_norm: float,
  lr_scales: Mapping[str, float] | None = None,
) -> optax.GradientTransformation:
  """Makes the optimizer.

  Args:
    learning_rate: the peak of `bert_schedule`.
    warmup_steps: steps of linear warm-up, 0 for none.
    num_steps: step at which the learning rate reaches 0.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    weight_decay: share of a weight taken off a step, times the learning rate.
    clip_norm: largest global norm of the gradients of all trained subtrees.
    lr_scales: learning rate multiplier of each top-level key of the params; 0
      freezes the subtree: no update, no moments, no share in the norm.

  Raises:
    InputError: at init, for a key in lr_scales that the params do not have.
  """
  lr_scales = dict(lr_scales or {})
  adam = optax.chain(
    optax.clip_by_global_norm(clip_norm),
    scale_by_bert_adam(b1, b2, eps),
    optax.add_decayed_weights(weight_decay, mask=decayed),
    _scale_subtrees(lr_scales),
    optax.scale_by_learning_rate(
      bert_schedule(learning_rate, warmup_steps, num_steps)
    ),
  )

  def labels(params):
    _check_keys(lr_scales, params)
    return {k: "frozen" if lr_scales.get(k) == 0 else "trained" for k in params}

  return optax.partition(
    {"trained": adam, "frozen": optax.set_to_zero()}, labels
  )


def bert_schedule(
  learning_rate: float, warmup_steps: int, num_steps: int
) -> optax.Schedule:
  """Linear warm-up to, then linear decay from, as one clock has it.

  At step s < warmup_steps: learning_rate * s / warmup_steps, so the very first
  step moves nothing; later: learning_rate * (1 - s / num_steps).
  """

  def schedule(step):
    step = jnp.asarray(step, jnp.float32)
    decayed_rate = jnp.maximum(0.0, 1 - step / num_steps)
    rate = jnp.where(
      step < warmup_steps, step / max(warmup_steps, 1), decayed_rate
    )
    return learning_rate * rate

  return schedule


def scale_by_bert_adam(
  b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
  """m / (sqrt(v) + eps) with m and v as they are, no bias correction."""

  def init(params):
    return optax.ScaleByAdamState(
      count=jnp.zeros((), jnp.int32),
      mu=jax.tree.map(jnp.zeros_like, params),
      nu=jax.tree.map(jnp.zeros_like, params),
    )

  def update(grads, state, params=None):
    del params
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
    nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
    updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
    return updates, optax.ScaleByAdamState(state.count + 1, mu, nu)

  return optax.GradientTransformation(init, update)


def decayed(params: Any) -> Any:
  """True for each weight that decays: all but norms and biases."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: not _NOT_DECAYED.search(jax.tree_util.keystr(path)), params
  )


def _scale_subtrees(scales: dict[str, float]) -> optax.GradientTransformation:
  def scale(updates, params=None):
    del params
    return {
      key: optax.tree.scale(scales[key], tree) if key in scales else tree
      for key, tree in updates.items()
    }

  return optax.stateless(scale)


def _check_keys(scales: dict[str, float], params: Any) -> None:
  for key in scales:
    if key not in params:
      raise InputError(
        f"learning rate scale for {key!r}: the params have no such part, only"
        f" {', '.join(sorted(params))}"
      )
