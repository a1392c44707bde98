"""The planner's figures beside the compiler's, for three configs.

  python -m benchmarks.plan [--size=demo]

Each step is compiled for this machine's device from shapes, as the commands
run it: on one device, and the mesh's on all where there are several
(XLA_FLAGS=--xla_force_host_platform_device_count=8). Nothing is allocated. The
corpus has as many blocks as the leads. --size is of configs/.

Columns, bytes of a device: what the planner says a step takes; the compiler's
memory analysis, arguments + outputs - what they share + the rest; their ratio.
"""

import dataclasses

import jax
from absl import flags

from benchmarks import start
from configs import common
from configs import finetune as finetune_config
from configs import ict as ict_config
from configs import pretrain as pretrain_config
from realm_jax import sharding
from realm_jax.plan import plan
from realm_jax.retrieval.candidates import Specials
from realm_jax.train import finetune, ict, pretrain, shapes

RUNS = {
  "ict": (ict_config, ict.program),
  "pretrain": (pretrain_config, pretrain.program),
  "finetune": (finetune_config, finetune.program),
}
_NUM_BLOCKS = 10_096  # of the leads


def planned_corpus(config, devices: int, num_blocks: int = _NUM_BLOCKS):
  """A corpus of the config's vocabulary."""
  return shapes.PlannedCorpus(
    tokenizer=shapes.Vocabulary(config.data.tokenizer.vocab_size),
    store=range(num_blocks),
    mesh=sharding.planned_mesh(sharding.mesh_sizes(devices, **config.mesh)),
    specials=Specials(0, 1, 2, 3),
  )


def compare(config, make, devices: int = 1) -> tuple[int, int]:
  """Bytes of a device: the planner's, the compiler's.

  Args:
    config: of a run.
    make: the run's `program`.
    devices: of the mesh.
  """
  corpus = planned_corpus(config, devices)
  program = make(config, corpus)
  says = sum(plan.memory(program).values())
  if devices > 1:
    program = on_mesh(config, make, corpus)
  stats = plan.compiled_memory(program)
  takes = stats.argument_size_in_bytes + stats.output_size_in_bytes
  takes += stats.temp_size_in_bytes - stats.alias_size_in_bytes
  return says, takes


def on_mesh(config, make, corpus):
  """The step of a real mesh, with the arguments where a run has them."""
  mesh = sharding.make_mesh(**corpus.mesh.shape)
  whole = make(config, dataclasses.replace(corpus, mesh=shapes.Whole(mesh)))
  return dataclasses.replace(whole, args=shapes.on_mesh(whole.args, mesh))


def main(f) -> None:
  """Prints the table."""
  size = f.size
  devices = sorted({1, jax.device_count()})
  device = jax.devices()[0].device_kind
  print(f"{size}, {device}, jax {jax.__version__}, a device of the mesh\n")
  print(f"{'':12}{'devices':>8}{'planner':>12}{'compiler':>12}{'ratio':>8}")
  for name, (module, make) in RUNS.items():
    for count in devices:
      config = module.get_config(size)
      says, takes = compare(config, make, count)
      figures = f"{plan.show(says):>12}{plan.show(takes):>12}"
      print(f"{name:12}{count:>8}{figures}{says / takes:>8.2f}", flush=True)


if __name__ == "__main__":
  flags.DEFINE_enum("size", "demo", common.SIZES, "of the models")
  start.run(main)
