"""A batch in parts: the gradients and figures of the whole, by slow means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax import sharding
from realm_jax.train import accumulate
from realm_jax.train.accumulate import Mean

B, M, D = 16, 3, 5
# Sums in another order: float32.
TOLERANCE = 1e-5


def batch():
  rng = np.random.default_rng(0)
  mask = rng.integers(0, 2, (B, M))
  mask[::4] = 0  # one of four parts has no mask at all
  return {
    "x": rng.standard_normal((B, M, D)).astype(np.float32),
    "mask": mask,
    "score": rng.standard_normal(B).astype(np.float32),
    "none": None,
  }


def make_grad_fn(w):
  def loss_fn(w, batch):
    error = jnp.sin(batch["x"] @ w) * batch["mask"]
    count = batch["mask"].sum()
    loss = error.sum() / jnp.maximum(count, 1)
    return loss, {"loss": Mean(loss, count), "score": batch["score"].mean()}

  return lambda batch, rng: jax.grad(loss_fn, has_aux=True)(w, batch)


@pytest.mark.parametrize("num_parts", [2, 4])
@pytest.mark.parametrize("devices", [1, 2])
def test_the_whole_of_parts(num_parts, devices):
  w = jnp.arange(1.0, D + 1)
  mesh = sharding.make_mesh(devices)
  placed = sharding.shard_batch(batch(), mesh)

  @jax.jit
  def run(batch):
    rng = jax.random.key(0)
    return accumulate.gradients(make_grad_fn(w), batch, rng, num_parts)

  gradient, metrics = run(placed)
  host = batch()
  products, mask = host["x"] @ np.asarray(w), host["mask"]
  slopes = (np.cos(products) * mask)[..., None] * host["x"]
  want = slopes.sum((0, 1)) / mask.sum()
  np.testing.assert_allclose(gradient, want, rtol=TOLERANCE)
  loss = (np.sin(products) * mask).sum() / mask.sum()
  np.testing.assert_allclose(metrics["loss"], loss, rtol=TOLERANCE)
  score = host["score"].mean()
  np.testing.assert_allclose(metrics["score"], score, rtol=TOLERANCE)


def test_one_part_is_the_function_itself():
  w = jnp.arange(1.0, D + 1)
  grad_fn = make_grad_fn(w)
  gradient, metrics = accumulate.gradients(grad_fn, batch(), None, 1)
  want, raw = grad_fn(batch(), None)
  np.testing.assert_array_equal(gradient, want)
  assert metrics["loss"] == raw["loss"].value


def test_each_part_has_a_dropout_key_of_its_own():
  def grad_fn(rows, rng):
    draw = jax.random.uniform(rng)
    return draw * rows.sum(), {"loss": draw, "seen": draw}

  rng = jax.random.key(1)
  _, metrics = accumulate.gradients(grad_fn, jnp.ones(6), rng, 3)
  want = np.mean([jax.random.uniform(k) for k in jax.random.split(rng, 3)])
  np.testing.assert_allclose(metrics["seen"], want, rtol=TOLERANCE)


def test_no_loss_at_all_is_no_gradient():
  w = jnp.arange(1.0, D + 1)
  empty = {**batch(), "mask": np.zeros((B, M), int)}
  args = jax.tree.map(jnp.asarray, empty), jax.random.key(0), 2
  gradient, metrics = accumulate.gradients(make_grad_fn(w), *args)
  np.testing.assert_array_equal(gradient, np.zeros(D))
  assert metrics["loss"] == 0
