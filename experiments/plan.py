"""What a run takes and costs, before anything starts; refuses one too large.

  python -m experiments.plan --config=configs/pretrain.py:base \\
    [--workdir=DIR] [--blocks=13353718] [--devices=64] [--device_memory=80GB] \\
    [--peak_flops=9.9e14 --bandwidth=3.35e12] [--compile]

Nothing is trained, written or allocated. The corpus is DIR's prepared data if
there is any; without, it has --blocks blocks and the config's vocabulary.

Needs: a config; no data.
"""

from absl import flags

from experiments import command

_BLOCKS = flags.DEFINE_integer("blocks", 0, "blocks, without prepared data")
_DEVICES = flags.DEFINE_integer(
  "devices", 0, "of the mesh; 0: config.mesh's, or those that are here"
)
_MEMORY = flags.DEFINE_string(
  "device_memory", "", "bytes, such as 80GB; '': what the device tells"
)
_FLOPS = flags.DEFINE_string("peak_flops", "", "of a device, in a second")
_BANDWIDTH = flags.DEFINE_string("bandwidth", "", "of its memory, bytes/s")
_COMPILE = flags.DEFINE_boolean(
  "compile", False, "ask the compiler what a step takes; slow, exact"
)


def main(config, workdir):
  from realm_jax.plan import device, plan, report
  from realm_jax.train import programs

  program = programs.program(config, workdir, _BLOCKS.value, _DEVICES.value)
  available = device.memory()
  if _MEMORY.value:
    available = int(device.parse("device_memory", _MEMORY.value))
  rates = [
    device.parse(flag.name, flag.value) if flag.value else None
    for flag in (_FLOPS, _BANDWIDTH)
  ]
  sizes = plan.memory(program, _COMPILE.value)
  print(report.table(program, sizes, available, *rates), flush=True)
  if available is not None:
    plan.check(program, sizes, available)


if __name__ == "__main__":
  command.run(main, default_workdir=".")
