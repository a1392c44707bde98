"""One pre-training step on a mesh over all devices of all processes: a program.

  fsdp_run.py WHERE DATA FSDP TENSOR

Writes gradients and metrics as WHERE/PROCESS.npz; REALM_PROCESSES makes it one
process of several.
"""

import os
import pathlib
import sys

import jax
import numpy as np

from experiments import command
from realm_jax import distributed


def main(where: str, *sizes: str) -> None:
  """Runs the step."""
  if process := os.environ.get(command.PROCESSES):
    distributed.join(process)
  from tests.sharding import step_test  # makes arrays

  gradients, metrics, _ = step_test.outcome("pretrain", (*map(int, sizes),))
  path = pathlib.Path(where) / f"{jax.process_index()}.npz"
  np.savez(path, **gradients, **{f"metric {k}": v for k, v in metrics.items()})
  distributed.wait_for_all()


if __name__ == "__main__":
  with distributed.ending_at_once():
    main(*sys.argv[1:])
