"""Compiles the step of a mesh that is not there, and prints what it takes.

  python -m benchmarks.compile_only DEVICES [FSDP] [LAYERS] [BLOCKS]

The step of configs/pretrain.py:base (batch 512, K = 8, interleaved refresh)
over BLOCKS blocks, 13,353,718 by default, is compiled from shapes for DEVICES
simulated devices, FSDP of them along that axis. Nothing is allocated. LAYERS
replaces the 12 layers of both models: a full step takes a CPU many minutes. The
last layer of a model is computed at the few positions that are read, so one
layer alone tells nothing of the others: what they take is the difference
between three layers and two.

Columns, of one device: arguments (params, moments, its rows of index and block
tokens, its part of the batch); the rest the compiler wants; then the number and
the bytes of the exchanges of a step, of each kind, one inside a loop counted
once. The CPU compiler sums where others scatter the sums.
"""

import os
import sys

_FLAGS = "--xla_backend_optimization_level=0"


def main(
  devices: int = 64, fsdp: int = 4, layers: int = 12, blocks: int = 0
) -> None:
  """Prints one row."""
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["XLA_FLAGS"] = " ".join(
    (
      os.environ.get("XLA_FLAGS", ""),
      f"--xla_force_host_platform_device_count={devices}",
      _FLAGS,
    )
  )
  import jax

  from benchmarks.plan import on_mesh, planned_corpus
  from configs import pretrain
  from realm_jax.plan import collectives, plan, scale
  from realm_jax.train import pretrain as train_pretrain

  blocks = blocks or scale.WIKIPEDIA
  config = pretrain.get_config("base")
  config.mesh.fsdp = fsdp
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
  main(*map(int, sys.argv[1:]))
