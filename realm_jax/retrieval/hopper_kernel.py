"""The kernel of retrieval/hopper.py, in Pallas on Mosaic GPU.

Each multiprocessor keeps all queries in its shared memory, and buckets of rows
stream through beside them, read once. Of three warpgroups one fetches; two
share the queries, and while one takes the maxima of its scores, the other
multiplies.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from realm_jax.retrieval.hopper import BUCKET, SIZE

_PART = 64  # queries that a warpgroup multiplies at a time, wgmma's M
_GROUPS = 2  # warpgroups that multiply
_SLOTS = 2  # of what is on its way out
_SHARED = 196_608  # bytes for queries and rows, of 232,448 on a multiprocessor
MULTIPLE = _GROUPS * _PART  # of queries


def make(n: int, b: int, cores: int, interpret=None) -> Callable:
  """(rows [n, 128], queries [b, 128]) -> maxima, squared norms of rows.

  As of `hopper.bucket_maxima`, the norms [n / BUCKET, BUCKET] of each row.
  """
  buckets = -(-n // BUCKET)
  return plgpu.kernel(
    functools.partial(_kernel, cores=cores),
    out_type=(
      jax.ShapeDtypeStruct((buckets, b), jnp.float32),
      jax.ShapeDtypeStruct((buckets, BUCKET), jnp.float32),
    ),
    scratch_types=(
      plgpu.SMEM((b, SIZE), jnp.bfloat16, transforms=_tiles()),
      plgpu.SMEM((_GROUPS, _SLOTS, b // _GROUPS), jnp.float32),
      plgpu.SMEM((_GROUPS, _SLOTS, BUCKET // _GROUPS), jnp.float32),
      plgpu.Barrier(),
    ),
    grid=(cores,),
    grid_names=("core",),
    num_threads=_GROUPS + 1,
    thread_name="group",
    compiler_params=plgpu.CompilerParams(
      lowering_semantics=plgpu.LoweringSemantics.Warpgroup
    ),
    interpret=interpret,
  )


def _tiles():
  """How wgmma wants rows of 16 bits in shared memory."""
  return plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128)


def _kernel(
  rows, queries, maxima, squares, held, best, lengths, came, *, cores
):
  """What a multiprocessor does: every `cores`-th bucket.

  Args:
    rows [N, P], queries [B, P], maxima [N / BUCKET, B], squares [N / BUCKET,
      BUCKET]: in the device's memory.
    held [B, P]: the queries; best [2, 2, B / 2], lengths [2, 2, BUCKET / 2]:
      of a warpgroup, on their way out; came: the queries are here.
    cores: multiprocessors.
  """
  core, group = jax.lax.axis_index("core"), jax.lax.axis_index("group")
  of_group, of_bucket = best.shape[-1], lengths.shape[-1]
  buckets = maxima.shape[0]
  steps = -(-buckets // cores)

  def bucket_of(step):
    return jnp.minimum(step * cores + core, buckets - 1)  # the last one again

  def multiply(indices, tile):
    (step,) = indices
    bucket = bucket_of(step)
    slot = jax.lax.rem(step, jnp.array(_SLOTS, step.dtype))
    plgpu.wait_smem_to_gmem(_SLOTS - 1, wait_read_only=True)
    for first in range(0, of_group, _PART):
      part = held.at[pl.ds(group * of_group + first, _PART)]

      def scores(total, part=part, first=first):
        plgpu.wgmma(total, part, tile.transpose((1, 0)))
        if not first:  # meanwhile
          mine = tile[pl.ds(group * of_bucket, of_bucket)].astype(jnp.float32)
          lengths[group, slot] = (mine * mine).sum(axis=1)
        return total[...]

      total = plgpu.ACC((_PART, BUCKET), jnp.float32)
      best[group, slot, pl.ds(first, _PART)] = pl.run_scoped(scores, total).max(
        axis=1
      )
    plgpu.commit_smem()
    for source, target in ((best, maxima), (lengths, squares)):
      size = source.shape[-1]
      plgpu.copy_smem_to_gmem(
        source.at[group, slot],
        target.at[bucket, pl.ds(group * size, size)],
        commit_group=target is squares,
      )

  @pl.when(group == 0)
  def _():
    plgpu.copy_gmem_to_smem(queries, held, came)

  plgpu.barrier_wait(came)
  room = (_SHARED - 2 * held.shape[0] * SIZE) // (2 * BUCKET * SIZE)
  plgpu.emit_pipeline_warp_specialized(
    multiply,
    grid=(steps,),
    memory_registers=40,
    in_specs=[
      plgpu.BlockSpec(
        (BUCKET, SIZE),
        lambda step: (bucket_of(step), 0),
        transforms=_tiles(),
        memory_space=plgpu.SMEM,
      )
    ],
    wg_axis="group",
    num_compute_wgs=_GROUPS,
    max_concurrent_steps=min(room, steps),
  )(rows)
  plgpu.wait_smem_to_gmem(0)
