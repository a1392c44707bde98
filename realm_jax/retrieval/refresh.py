"""The live index of a run, and how all blocks are embedded for the next one.

Blocks are embedded slice by slice, each shard of the mesh embedding rows that it
holds itself. When that is done, and by whom, is refresher.py's.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import NamedSharding

from realm_jax import sharding
from realm_jax.retrieval import block_tokens
from realm_jax.retrieval.block_tokens import Tokens
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.types import Array

_MAX_IN_FLIGHT = 8  # slices queued at a time


@struct.dataclass
class Index:
  """The index as a step sees it.

  Attributes:
    block_emb: [N, P], searched.
    version: () int32.
    params_step: () int32, the training step of the params that made it.
    params: the embedder's that made it, where queries are embedded with them to
      be searched, or None.
    shadow: [N, P] the next version in the making, or None.
    shadow_params: the embedder's params that make it, or None.
    shadow_step: () int32, the step those params are of, or None.
  """

  block_emb: Array
  version: Array
  params_step: Array
  params: dict | None = None
  shadow: Array | None = None
  shadow_params: dict | None = None
  shadow_step: Array | None = None


def padded_rows(num_blocks: int, num_shards: int, slice_size: int) -> int:
  """Rows of an index whose shards hold whole slices."""
  unit = num_shards * slice_size
  return -(-num_blocks // unit) * unit


@dataclasses.dataclass(frozen=True)
class BlockEmbedder:
  """Embeds the whole corpus, a slice at a time.

  Attributes:
    retrieval: holds the embedder.
    slice_size: blocks a shard embeds at a time.
    num_shards: of the rows.
  """

  retrieval: Retrieval
  slice_size: int
  num_shards: int = 1

  def num_slices(self, num_rows: int) -> int:
    """Slices that cover an index of num_rows rows."""
    return num_rows // (self.num_shards * self.slice_size)

  def embed_slice(self, params, tokens: Tokens, out: Array, i: Array) -> Array:
    """Writes slice i of every shard into out [N, P]; past the end: the last."""
    start = jnp.minimum(i, self.num_slices(out.shape[0]) - 1) * self.slice_size

    def view(x):  # [N, ...] -> [shards, rows of a shard, ...]
      return x.reshape(self.num_shards, -1, *x.shape[1:])

    mesh = self.retrieval.mesh
    rows = block_tokens.slices(
      tokens, start, self.slice_size, self.num_shards, mesh
    )
    params = sharding.gather(params, mesh, ("fsdp", "tensor"))
    emb = self.retrieval.embed_blocks({"embedder": params}, rows)
    new = jax.lax.dynamic_update_slice_in_dim(
      view(out), emb.astype(out.dtype), start, axis=1
    )
    return new.reshape(out.shape)

  def advance(
    self,
    index: Index,
    tokens: Tokens,
    step: Array,
    slices_per_step: int,
  ) -> Index:
    """Embeds this step's slices of the shadow; part of a training step."""
    first = (step - index.shadow_step) * slices_per_step

    # once, and not in every round
    mesh = self.retrieval.mesh
    params = sharding.gather(index.shadow_params, mesh, ("fsdp", "tensor"))

    def embed(i, shadow):
      return self.embed_slice(params, tokens, shadow, first + i)

    left = self.num_slices(index.shadow.shape[0]) - first
    count = jnp.clip(left, 0, slices_per_step)  # the last steps have less to do
    with jax.named_scope("refresh"):  # its name in a profile
      shadow = jax.lax.fori_loop(0, count, embed, index.shadow)
    return index.replace(shadow=shadow)

  def embed_all(
    self,
    params,
    tokens: Tokens,
    dtype=jnp.float32,
    on_slice: Callable[[int, int], None] = lambda done, total: None,
  ) -> Array:
    """Embeds every block with the embedder's params -> [N, P]."""
    out = self.empty(tokens.num_rows, dtype)
    total = self.num_slices(tokens.num_rows)
    for i in range(total):
      out = _embed_slice(self, params, tokens, out, np.int32(i))
      if i % _MAX_IN_FLIGHT == _MAX_IN_FLIGHT - 1:
        out.block_until_ready()
      on_slice(i + 1, total)
    return out.block_until_ready()

  def empty(self, num_rows: int, dtype=jnp.float32) -> Array:
    """An index [N, P] of zeros, rows over the mesh."""
    size, mesh = (
      self.retrieval.embedder.config.retriever_proj_size,
      self.retrieval.mesh,
    )
    place = mesh and NamedSharding(mesh, sharding.ROWS)
    return jnp.zeros((num_rows, size), dtype, device=place)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def _embed_slice(embedder, params, tokens, out, i):
  return embedder.embed_slice(params, tokens, out, i)
