"""Compiles the step of a mesh that is not there, and prints what it takes.

  python -m benchmarks.compile_only [--devices=64] [--fsdp=4] [--layers=12]

The step of configs/pretrain.py:base (batch 512, K = 8, interleaved refresh)
over --blocks blocks, those of the original corpus, is compiled from shapes for
simulated devices, --fsdp of them along that axis. Nothing is allocated. It takes
two minutes. With --layers the models have fewer; the last one of each is computed
at the few positions that are read, so one layer alone tells nothing of the others.

Columns, of one device: arguments (params, moments, its rows of index and block
tokens, its part of the batch); the rest the compiler wants; then the number and
the bytes of the exchanges of a step, of each kind, one inside a loop counted
once. The CPU compiler sums where others scatter the sums.
"""

import os

import jax
from absl import flags

from benchmarks import start
from benchmarks.plan import on_mesh, planned_corpus
from configs import pretrain
from realm_jax.plan import collectives, plan, scale
from realm_jax.train import pretrain as train_pretrain


def main(f) -> None:
  """Prints one row."""
  devices, blocks, layers = f.devices, f.blocks, f.layers
  jax.config.update("jax_platforms", "cpu")
  # XLA reads its flags when the first device is asked for
  os.environ["XLA_FLAGS"] = " ".join(
    (
      os.environ.get("XLA_FLAGS", ""),
      f"--xla_force_host_platform_device_count={devices}",
      "--xla_backend_optimization_level=0",
    )
  )
  config = pretrain.get_config("base")
  config.mesh.fsdp = f.fsdp
  for part in (config.embedder, config.encoder):
    part.num_hidden_layers = layers
  corpus = planned_corpus(config, devices, blocks)
  program = on_mesh(config, train_pretrain.program, corpus)
  compiled = plan.compiled(program)
  stats = compiled.memory_analysis()
  found = collectives.collectives(compiled.as_text())
  print(
    f"{devices} devices ({dict(corpus.mesh.shape)}), {blocks} blocks,"
    f" {layers} layers, jax {jax.__version__}"
  )
  print(f"arguments         {plan.show(stats.argument_size_in_bytes):>10}")
  print(f"the rest          {plan.show(stats.temp_size_in_bytes):>10}")
  for kind in sorted({c.kind for c in found}):
    sent = [c.bytes for c in found if c.kind == kind]
    largest = plan.show(max(sent))
    print(
      f"{kind:18}{plan.show(sum(sent)):>10}  in {len(sent)}, the largest"
      f" {largest}"
    )


if __name__ == "__main__":
  flags.DEFINE_integer("devices", 64, "of the mesh", 1)
  flags.DEFINE_integer("fsdp", 4, "of them along this axis", 1)
  flags.DEFINE_integer("layers", 12, "of each model", 1)
  flags.DEFINE_integer("blocks", scale.WIKIPEDIA, "of the corpus", 1)
  start.run(main)
