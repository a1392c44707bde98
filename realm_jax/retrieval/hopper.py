"""The best score of each bucket of rows, on NVIDIA's Hopper GPUs in one kernel.

XLA writes scores to the device's memory and reads them again for the maxima,
which takes far longer than the product; the kernel (retrieval/hopper_kernel.py)
keeps them in registers. Elsewhere, and for other rows, XLA's way stays.
"""

import jax
import jax.numpy as jnp

from realm_jax import backend
from realm_jax.retrieval import vectors
from realm_jax.types import Array

BUCKET = 128  # rows
QUERIES = 512  # the most at a time
SIZE = 128  # P
SCOPE = "bucket_maxima"  # of the kernel; plan/cost.py knows it
_LEAST = 2**16  # rows: fewer are soon searched
_CAPABILITY = "9.0"  # Hopper's; no other GPU has its wgmma


def takes(rows: Array | vectors.Quantized) -> bool:
  """Whether rows [N, P] of one device can be searched by the kernel here."""
  if isinstance(rows, vectors.Quantized) or rows.dtype != jnp.bfloat16:
    return False
  n, p = rows.shape
  if p != SIZE or n % 8 or n < _LEAST:  # 8: as the copy engine's tiles
    return False
  if not backend.name() == jax.default_backend() == "gpu":
    return False
  return jax.local_devices()[0].compute_capability == _CAPABILITY


def bucket_maxima(
  rows: Array, queries: Array, *, cores: int = 0, interpret=None
) -> tuple[Array, Array]:
  """The best score of each bucket of rows, and how long the longest row is.

  Args:
    rows: [N, 128] bfloat16, N a multiple of 8.
    queries: [B, 128] bfloat16, at most QUERIES.
    cores: multiprocessors; 0: those of the device.
    interpret: mosaic_gpu.InterpretGPUParams, to run without a GPU.

  Returns:
    maxima [ceil(N / BUCKET), B] float32, of products summed in float32 (rows
    that the last bucket lacks are zeros); the largest norm of a row, ().
  """
  from realm_jax.retrieval import hopper_kernel  # its imports take a second

  cores = cores or jax.local_devices()[0].core_count
  b = queries.shape[0]
  queries = jnp.pad(queries, ((0, -b % hopper_kernel.MULTIPLE), (0, 0)))
  run = hopper_kernel.make(rows.shape[0], len(queries), cores, interpret)
  with jax.named_scope(SCOPE):
    maxima, squares = run(rows, queries)
  return maxima[:, :b], jnp.sqrt(squares.max())
