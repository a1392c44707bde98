"""FLOPs of a traced step: by hand, over a mesh, and beside the compiler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import plan as beside
from configs import pretrain
from realm_jax import sharding
from realm_jax.plan import flops
from realm_jax.retrieval import mips
from realm_jax.train import pretrain as train_pretrain


def _jaxpr(function, *args):
  return jax.jit(function).trace(*args).jaxpr


def _array(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_what_is_computed_again_is_not_counted():
  def layer(x, w):
    return jnp.tanh(x @ w)

  def loss(ws, x, layer):
    x, _ = jax.lax.scan(lambda x, w: (layer(x, w), None), x, ws)
    return layer(x, ws[0]).sum()

  def count(layer):
    grad = jax.value_and_grad(lambda ws, x: loss(ws, x, layer))
    return flops.count(_jaxpr(grad, _array(5, 7, 7), _array(3, 7)))[0]

  once = 2 * 3 * 7 * 7
  assert count(layer) == 3 * 6 * once  # 5 + 1 forwards, and twice that back
  assert count(jax.checkpoint(layer)) == count(layer)


def test_a_scope_and_the_rounds_of_a_loop():
  def function(x, w, n):
    with jax.named_scope("search"):
      x = x @ w
    return jax.lax.fori_loop(0, n, lambda i, x: x @ w @ w, x)

  args = _array(3, 5), _array(5, 5), jax.ShapeDtypeStruct((), jnp.int32)
  once = 2 * 3 * 5 * 5
  counted = flops.count(_jaxpr(function, *args), "search", rounds=4)
  assert counted == ((1 + 2 * 4) * once, once)


@pytest.mark.parametrize("devices", [1, 8])
def test_search_is_that_of_all_devices(devices):
  mesh = sharding.make_mesh(devices)

  def search(rows, queries):
    with jax.named_scope("search"):
      return mips.top_k(rows, queries, 2, mesh=mesh)

  jaxpr = _jaxpr(search, _array(64, 5), _array(3, 5))
  assert flops.count(jaxpr, "search") == (2 * 64 * 3 * 5,) * 2


def test_as_many_as_the_compiler_says():
  """XLA counts what is no product as well: little, in a model this wide."""
  config = pretrain.get_config("smoke")
  for part in (config.embedder, config.encoder):
    part.hidden_size, part.intermediate_size = 128, 256
    part.num_hidden_layers = 1
  config.refresh.mode = "never"  # of a loop it counts one round
  program = train_pretrain.program(config, beside.planned_corpus(config, 1, 64))
  jitted = jax.jit(program.step)
  traced = jitted.trace(*program.args)
  counted, search = flops.count(traced.jaxpr, "search")
  says = traced.lower().compile().cost_analysis()["flops"]
  assert counted == pytest.approx(says, rel=0.1)
  b, p = config.train.batch_size, config.embedder.retriever_proj_size
  assert search == 2 * b * p * len(np.zeros(64))
