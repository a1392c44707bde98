"""What is read off a program's text, and off a program."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from realm_jax import sharding
from realm_jax.plan.collectives import Collective, collectives


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
