"""What is read off a program's text, and off a program."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import plan as beside
from configs import pretrain
from realm_jax import sharding
from realm_jax.plan import plan, wire
from realm_jax.plan.collectives import Collective, collectives
from realm_jax.train import pretrain as train_pretrain


def test_of_a_text():
  many = "f32[3]{0}, " * 5 + "/*index=5*/bf16[2,7]{1,0}, f32[]"
  text = f"""
  %a = f32[5,4]{{1,0}} all-gather(%x), dimensions={{0}}
  ROOT %b = ({many}) all-reduce(%y, %z), to_apply=%sum
  %c = pred[9]{{0}} collective-permute-start(%x)
  %d = f32[8]{{0}} add(%a, %all-gather.3)
  """
  assert collectives(text) == [
    Collective("all-gather", (20,), 80),
    Collective("all-reduce", (3, 3, 3, 3, 3, 14, 1), 4 * 15 + 28 + 4),
    Collective("collective-permute", (9,), 9),
  ]


def test_of_a_program():
  mesh = sharding.make_mesh(2)
  rows = NamedSharding(mesh, PartitionSpec("data"))
  x = jax.device_put(np.ones((6, 4), np.float32), rows)
  program = jax.jit(lambda x: jnp.sin(x).sum(0)).lower(x).compile()
  assert collectives(program.as_text()) == [Collective("all-reduce", (4,), 16)]


@pytest.mark.nightly
@pytest.mark.parametrize("axis", ["data", "fsdp"])
def test_the_formulas_beside_a_compiled_step(axis):
  """XLA for CPU sums where the sum could be scattered, and sums some gradients
  in parts: up to twice as much."""
  config = pretrain.get_config("smoke")
  config.train.batch_size = 8
  config.mesh.data = 1
  config.mesh[axis] = 8
  corpus = beside.planned_corpus(config, 8, 400)
  says = train_pretrain.program(config, corpus).sent
  program = beside.on_mesh(config, train_pretrain.program, corpus)
  sent = collections.Counter()
  for passed in collectives(plan.compiled(program).as_text()):
    ways = wire.summed if passed.kind == "all-reduce" else wire.gathered
    sent[passed.kind] += ways(passed.bytes, 8)
  assert sent.keys() == {"all-gather", "all-reduce"}
  gathered = ("params", "queries", "short lists")
  assert sent["all-gather"] == pytest.approx(
    sum(says.get(name, 0) for name in gathered), rel=0.2
  )
  sums = says["gradients"] * (2 if axis == "fsdp" else 1)
  assert sums <= sent["all-reduce"] <= 2 * sums
