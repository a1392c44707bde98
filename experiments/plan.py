"""What a run takes and costs, before anything starts; refuses one too large.

  python -m experiments.plan --config=configs/pretrain.py:base \\
    [--workdir=DIR] [--blocks=13353718] [--devices=64] [--platform=h100] \\
    [--device_memory=80GB] [--peak_flops=9.9e14 --bandwidth=3.35e12] \\
    [--compile | --scale]

Nothing is trained, written or allocated. The corpus is DIR's prepared data if
there is any; without, it has --blocks blocks and the config's vocabulary. Of
--platform are memory and peaks that no other flag gives, and the program is
that platform's; without, it is that of the device here. --scale: a table of
meshes of 8 to 512 devices over 13 million and a billion blocks.

Needs: a config; no data.
"""

import functools

from absl import flags

from experiments import command

_BLOCKS = flags.DEFINE_integer("blocks", 0, "blocks, without prepared data")
_DEVICES = flags.DEFINE_integer(
  "devices", 0, "of the mesh; 0: config.mesh's, or those that are here"
)
_PLATFORM = flags.DEFINE_string(
  "platform", "", "a100, h100, h200, v3, v4, v5e, v5p; '': the device here"
)
_MEMORY = flags.DEFINE_string(
  "device_memory", "", "bytes, such as 80GB; '': what the device tells"
)
_FLOPS = flags.DEFINE_string("peak_flops", "", "of a device, in a second")
_BANDWIDTH = flags.DEFINE_string("bandwidth", "", "of its memory, bytes/s")
_COMPILE = flags.DEFINE_boolean(
  "compile", False, "ask the compiler what a step takes; slow, exact"
)
_SCALE = flags.DEFINE_boolean("scale", False, "a table of many sizes")


def main(config, workdir):
  from realm_jax import backend
  from realm_jax.config import InputError
  from realm_jax.plan import hardware, plan, report, scale
  from realm_jax.train import programs

  flags_of_device = (_PLATFORM, _MEMORY, _FLOPS, _BANDWIDTH)
  of = hardware.of_flags(*(flag.value for flag in flags_of_device))
  if of.backend and _COMPILE.value:
    raise InputError(
      f"--compile --platform={_PLATFORM.value}: the compiler is that of the"
      " device here; give one of the two"
    )
  make = functools.partial(programs.program, config, workdir)
  with backend.planned(of.backend):
    if _SCALE.value:
      for line in scale.table(scale.rows(make, of), of):
        print(line, flush=True)
      return
    program = make(_BLOCKS.value, _DEVICES.value)
    sizes = plan.memory(program, _COMPILE.value)
    print(report.table(program, sizes, *of[2:]), flush=True)
    if of.memory is not None:
      plan.check(program, sizes, of.memory)


if __name__ == "__main__":
  command.run(main, default_workdir=".")
