"""Bytes that a device sends to others in a step, by formulas.

Of n devices on a ring, each sends S (n-1)/n of an array of S bytes that is
gathered on all, or summed with each keeping its part; twice that where each
keeps all of the sum. With D, F the sizes of the mesh's axes data and fsdp, n
all its devices, G bytes of float32 params and E those of the embedder:

  params       gathered over F, G; for a refresh slice E as well
  gradients    summed in parts over F, G; those summed over D, G / F
  queries      [B, P] float32, gathered on all that search
  short lists  [B, k] scores and ids of each device, gathered
  blocks       tokens of [B, K] blocks, summed in parts: each device adds those
               it has; whole where there is a tensor axis
  embeddings   ICT's [B, P] of the other side, gathered; their gradient summed
               in parts

What a tensor axis sends (sums of activations, layer by layer) is not counted.
"""

from collections.abc import Mapping


def gathered(size: int, devices: int) -> int:
  """Sent for an array of `size` bytes, gathered or summed in parts."""
  return size * (devices - 1) // devices


def summed(size: int, devices: int) -> int:
  """Sent for a sum of `size` bytes that every device is to have."""
  return 2 * gathered(size, devices)


def step(
  mesh: Mapping[str, int],
  params: int,
  embedder: int = 0,
  queries: int = 0,
  short_list: int = 0,
  blocks: int = 0,
  embeddings: int = 0,
) -> dict[str, int]:
  """What a device sends in a step, by what it is.

  Args:
    mesh: axis -> devices.
    params: bytes of all params, G.
    embedder: bytes of those that a refresh slice computes with, E.
    queries: bytes of all [B, P] that are searched.
    short_list: bytes of the [B, k] that a device finds.
    blocks: bytes of the blocks' tokens that are read.
    embeddings: bytes of the [B, P] that a batch's others are scored with.
  """
  data, fsdp = mesh["data"], mesh["fsdp"]
  devices = data * fsdp * mesh["tensor"]
  found = {
    "params": gathered(params, fsdp) + gathered(embedder, fsdp),
    "gradients": gathered(params, fsdp) + summed(params // fsdp, data),
    "queries": gathered(queries, devices),
    "short lists": short_list * (devices - 1),
    "blocks": (gathered if mesh["tensor"] == 1 else summed)(blocks, devices),
    "embeddings": summed(embeddings, data * fsdp),
  }
  return {name: size for name, size in found.items() if size}
