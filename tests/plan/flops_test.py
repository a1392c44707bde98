"""FLOPs of a traced step: by hand, over a mesh, and beside the compiler."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import plan as beside
from configs import ict
from realm_jax import sharding
from realm_jax.plan import flops
from realm_jax.retrieval import mips
from realm_jax.train import ict as train_ict


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
  def loss(x, w):
    with jax.named_scope("search"):
      found = jax.lax.stop_gradient(x) @ w
    return (x * found).sum()

  def function(x, w, n):
    x = jax.grad(loss)(x, w)
    return jax.lax.fori_loop(0, n, lambda i, x: x @ w @ w, x)

  args = _array(3, 5), _array(5, 5), jax.ShapeDtypeStruct((), jnp.int32)
  once = 2 * 3 * 5 * 5
  counted = flops.count(_jaxpr(function, *args), "search", rounds=4)
  assert counted == ((1 + 2 * 4) * once, once)
  assert flops.count(_jaxpr(function, *args), "sea", rounds=1)[1] == 0

  def parts(xs, w):  # as of a batch that is computed in parts
    return jax.lax.map(lambda x: jax.grad(loss)(x, w), xs)

  jaxpr = _jaxpr(parts, _array(6, 3, 5), _array(5, 5))
  assert flops.count(jaxpr, "search") == (6 * once, 6 * once)


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
  config = ict.get_config("smoke")
  config.embedder.hidden_size, config.embedder.intermediate_size = 128, 256
  program = train_ict.program(config, beside.planned_corpus(config, 1, 64))
  traced = jax.jit(program.step).trace(*program.args)
  says = traced.lower().compile().cost_analysis()["flops"]
  assert flops.count(traced.jaxpr)[0] == pytest.approx(says, rel=0.1)


def test_three_lengths_tell_of_all_others():
  def attend(x, w):
    for _ in range(2):
      x = jax.nn.softmax(x @ x.T) @ (x @ w)
    return x[:1] @ w

  counted = {
    length: flops.count(_jaxpr(attend, _array(length, 7), _array(7, 7)))[0]
    for length in (16, 24, 31, 8, 300)
  }
  three = {length: counted[length] for length in (24, 8, 31)}
  for length, count in counted.items():
    assert flops.at_length(length, three) == count
