"""Blocks gathered by all devices of all processes: a program.

  block_tokens_run.py STORE

Compares what mesh and host give on each mesh with the store's own rows.
"""

import os
import sys

import jax
import numpy as np

from experiments import command
from realm_jax import distributed, sharding
from realm_jax.data.blocks import BlockStore
from realm_jax.retrieval import block_tokens
from realm_jax.retrieval.block_tokens import HostTokens

C, ROWS = 13, 48


def main(path: str) -> None:
  """Gathers twice of each mesh."""
  if process := os.environ.get(command.PROCESSES):
    distributed.join(process)
  store = BlockStore(path)
  ids = np.random.default_rng(7).integers(0, len(store), (8, 5))
  want = jax.tree.leaves(store.take(ids.reshape(-1), C))
  gather = jax.jit(block_tokens.gather_blocks, static_argnums=2)
  for sizes in ((8, 1, 1), (2, 2, 2)):
    mesh = sharding.make_mesh(*sizes)
    placed = sharding.make_rows(
      lambda first, last: store.device_tokens(C, last, first), ROWS, mesh
    )
    for tokens in (placed, HostTokens.of(store, C, ROWS)):
      given = sharding.shard_whole_batch(ids.astype(np.int32), mesh)
      found = sharding.fetch(gather(tokens, given, mesh))
      for x, y in zip(jax.tree.leaves(found), want, strict=True):
        np.testing.assert_array_equal(x.reshape(y.shape), y)
  distributed.wait_for_all()


if __name__ == "__main__":
  with distributed.ending_at_once():
    main(*sys.argv[1:])
