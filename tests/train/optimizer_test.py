"""bert_adam against a slow NumPy version of the original's equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.train import optimizer
from realm_jax.train.state import TrainState
from tests.train.bert_numbers import BERT

NUM_STEPS, WARMUP, RATE = 7, 3, 0.5
SCALES = {"embedder": 0.25, "frozen": 0.0}
SHAPES = {
  "embedder": {"dense": {"kernel": (2, 3), "bias": (3,)}},
  "encoder": {"output_norm": {"scale": (5,)}, "qkv_kernel": (4, 2)},
  "frozen": {"kernel": (6,)},
}


def _random(seed: int, scale: float):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda shape: scale * rng.normal(size=shape).astype(np.float32),
    SHAPES,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def _flat(tree) -> dict[str, np.ndarray]:
  return {
    "/".join(k.key for k in path): np.asarray(leaf, np.float64)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _slow_step(params, moments, grads, step):
  """One step of bert/optimization.py on flat float64 dicts, in place."""
  trained = [k for k in params if not k.startswith("frozen")]
  norm = np.sqrt(sum((grads[k] ** 2).sum() for k in trained))
  if step < WARMUP:
    rate = RATE * step / WARMUP
  else:
    rate = RATE * (1 - step / NUM_STEPS)
  for k in trained:
    g = grads[k] / max(norm, 1.0)
    m, v = moments[k]
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g**2
    moments[k] = m, v
    update = m / (np.sqrt(v) + 1e-6)
    if "bias" not in k and "norm" not in k:
      update = update + 0.01 * params[k]
    params[k] -= rate * SCALES.get(k.split("/")[0], 1.0) * update


@pytest.mark.parametrize("gradient_scale", [0.01, 10.0])  # norm below, above 1
def test_equals_the_slow_version_over_a_whole_run(gradient_scale):
  tx = optimizer.bert_adam(RATE, WARMUP, NUM_STEPS, lr_scales=SCALES, **BERT)
  start = _random(0, 1.0)
  state = TrainState.create(jax.tree.map(jnp.asarray, start), tx)
  update = jax.jit(lambda state, grads: state.apply_gradients(grads, tx))
  params = _flat(start)
  moments = dict.fromkeys(params, (0.0, 0.0))
  for step in range(NUM_STEPS + 1):
    grads = _random(1 + step, gradient_scale)
    state = update(state, grads)
    if step < NUM_STEPS:
      _slow_step(params, moments, _flat(grads), step)
    for key, value in _flat(state.params).items():
      np.testing.assert_allclose(value, params[key], 2e-5, 2e-6, err_msg=key)
  assert int(state.step) == NUM_STEPS + 1


def test_frozen_subtree_keeps_its_bits_and_has_no_moments():
  tx = optimizer.bert_adam(RATE, 0, NUM_STEPS, lr_scales=SCALES, **BERT)
  state = TrainState.create(_random(0, 1.0), tx)
  after = state.apply_gradients(_random(1, 1e6), tx)
  np.testing.assert_array_equal(
    after.params["frozen"]["kernel"], state.params["frozen"]["kernel"]
  )
  assert not [x for x in jax.tree.leaves(state.opt_state) if x.shape == (6,)]


def test_unknown_subtree_is_named():
  tx = optimizer.bert_adam(
    RATE, 0, NUM_STEPS, lr_scales={"reader": 0.1}, **BERT
  )
  with pytest.raises(InputError, match=r"'reader'.*embedder, encoder, frozen"):
    tx.init(_random(0, 1.0))
