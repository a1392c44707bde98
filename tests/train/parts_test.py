"""ICT in parts: the gradient of the whole batch, the memory of a part."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import ict as ict_config
from realm_jax import sharding
from realm_jax.config import InputError
from realm_jax.models import bert, objective
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.train import ict, parts, step
from realm_jax.train.shapes import PlannedCorpus, Vocabulary
from realm_jax.train.state import TrainState
from realm_jax.types import IctBatch
from tests import tiny_realm as tiny

B, PARTS = 48, 3  # two rows a part on each of eight devices
TX = optax.sgd(1.0)  # the new params are the old ones less the gradients


def ict_batch():
  rng = np.random.default_rng(0)

  def rows(length):
    ids = rng.integers(5, tiny.SIZES.vocab_size, (B, length))
    ids[np.arange(length) >= rng.integers(3, length + 1, (B, 1))] = 0
    return bert.make_inputs(ids, (ids > 0).astype(np.int32))

  return IctBatch(rows(tiny.Q), rows(tiny.C), np.arange(B))


class Bag(Retrieval):
  """With an embedder that compiles at once: a sum of wordpieces."""

  def embed(self, params, inputs, rng=None, fill=1.0, gapless=True):
    words = params["embedder"]["words"][inputs.input_ids]  # [R, T, P]
    words *= inputs.attention_mask[..., None]
    return jnp.tanh(words.sum(1)) @ params["embedder"]["out"]


def bag(mesh):
  rng = np.random.default_rng(1)
  words = rng.normal(size=(tiny.SIZES.vocab_size, 9))
  params = {"words": words, "out": rng.normal(size=(9, 10))}
  retrieval = Bag(**vars(tiny.retrieval(mesh)))
  return retrieval, {"embedder": jax.tree.map(np.float32, params)}


def bert_embedder(mesh):
  return tiny.retrieval(mesh), tiny.params_of("embedder")


@functools.cache
def gradient(make, num_parts, num_devices):
  mesh = sharding.make_mesh(num_devices)
  retrieval, params = make(mesh)
  state = sharding.replicate(TrainState.create(params, TX), mesh)
  run = step.make_ict_step(retrieval, TX, 0, num_parts)
  batch = sharding.shard_batch(ict_batch(), mesh)
  new, _, metrics = jax.jit(run)(state, None, batch, None)
  moved = jax.tree.map(lambda a, b: a - np.asarray(b), params, new.params)
  return moved, jax.tree.map(float, metrics)


@pytest.mark.parametrize(
  "make", [bag, pytest.param(bert_embedder, marks=pytest.mark.nightly)]
)
def test_a_step_in_parts_is_the_step_of_the_whole_batch(make):
  want, whole = gradient(make, 1, 1)
  for num_devices in (1, 8):
    got, metrics = gradient(make, PARTS, num_devices)
    off = optax.global_norm(jax.tree.map(np.subtract, got, want))
    assert off < 1e-5 * optax.global_norm(want)
    for name, value in whole.items():
      np.testing.assert_allclose(metrics[name], value, 1e-5, err_msg=name)


def test_every_other_block_of_the_batch_is_a_negative():
  retrieval, params = bag(None)
  batch, params = ict_batch(), params["embedder"]

  def embed(inputs):
    words = params["words"][inputs.input_ids] * inputs.attention_mask[..., None]
    return np.tanh(words.sum(1)) @ params["out"]

  score = retrieval.score_scale * embed(batch.query) @ embed(batch.block).T
  want = np.log(np.exp(score).sum(1)) - np.diagonal(score)
  _, metrics = gradient(bag, PARTS, 8)
  np.testing.assert_allclose(metrics["loss"], want.mean(), 1e-5)


def drop(params, x, key):
  """A stand-in for an embedder, wide inside; its "dropout" is the key's."""
  wide = jnp.tanh(x @ params["up"]) * (jax.random.key_data(key)[0] % 7)
  return wide @ params["down"]


def stand_in():
  rng = np.random.default_rng(1)
  params = {"up": rng.normal(size=(5, 513)), "down": rng.normal(size=(513, 4))}
  return jax.tree.map(np.float32, (params, rng.normal(size=(B, 5))))


def loss(params, x, num_parts):
  def embed(x, key):
    return drop(params, x, key)

  emb = parts.embed_in_parts(embed, x, jax.random.key(2), num_parts)
  return objective.ict_loss(emb, jnp.roll(emb, 1, 0))[0]


def test_both_passes_drop_the_same():
  params, x = stand_in()

  def by_hand(params):
    emb = np.zeros((B, 4))
    for i, key in enumerate(jax.random.split(jax.random.key(2), PARTS)):
      rows = slice(i, None, PARTS)
      emb = jnp.asarray(emb).at[rows].set(drop(params, x[rows], key))
    return objective.ict_loss(emb, jnp.roll(emb, 1, 0))[0]

  got = jax.jit(jax.grad(loss), static_argnums=2)(params, x, PARTS)
  want = jax.jit(jax.grad(by_hand))(params)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-2),
    got,
    want,
  )


def test_no_activations_of_other_parts_are_kept():
  def memory(num_parts):
    grad = jax.jit(jax.grad(loss), static_argnums=2)
    compiled = grad.lower(*stand_in(), num_parts).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert memory(12) < 0.3 * memory(1)


def test_parts_that_do_not_divide_the_batch_are_refused():
  config = ict_config.get_config("smoke")
  config.microbatches = 3
  mesh = sharding.make_mesh(4)
  corpus = PlannedCorpus(Vocabulary(53), range(100), mesh)
  with pytest.raises(
    InputError, match=r"microbatches=3.*multiple of 4 devices"
  ):
    ict.program(config, corpus)
