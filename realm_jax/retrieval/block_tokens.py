"""The tokens of blocks, by id: on the mesh, or left in the block store.

On the mesh each device has the tokens of its rows of the index. Those that a
batch reads are summed over the devices, one exchange: each adds the rows it
has, and keeps the rows of its own queries. In the store (`HostTokens`) they take
no memory of a device: each asks its host for the rows of its own queries, in
the middle of a step, and nothing is exchanged. What comes out is the same bit
for bit.

A block's id is known when the search has ended, and its tokens are read next: there
is no step in which to fetch them ahead. Instead the host tells the kernel of
all rows that are asked for before it reads the first, so that a disk is asked
for all of them at once.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from realm_jax import sharding
from realm_jax.config import InputError
from realm_jax.data.blocks import BlockStore
from realm_jax.data.packing import NUM_SPECIALS
from realm_jax.types import Array, BlockTokens

_LENS = 2  # columns of a packed row behind its wordpieces


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class HostTokens:
  """In BlockTokens' place: no arrays, but where to read them.

  Attributes:
    store: the blocks, memory-mapped; a range of as many, for a plan.
    block_len: C that the embedder reads; longer blocks are cut.
    num_rows: N; rows beyond the store's are padding.
    dtype: of the wordpieces.
    order: [N] whose tokens each row has; None: its own block's.
  """

  store: BlockStore | range
  block_len: int
  num_rows: int
  dtype: np.dtype
  order: np.ndarray | None = None

  @classmethod
  def of(cls, store: BlockStore, block_len: int, num_rows: int) -> "HostTokens":
    """Those of a store."""
    return cls(store, block_len, num_rows, store.tokens.flat.dtype)

  def read(self, ids: Array) -> BlockTokens:
    """The rows `ids` [...], as NumPy arrays; each is read once, in order."""
    ids = np.asarray(ids)
    wanted = ids if self.order is None else self.order[ids]
    unique, place = np.unique(wanted, return_inverse=True)
    self.store.will_need(unique)
    found = self.store.take(unique, self.block_len)
    place = place.reshape(ids.shape)
    return jax.tree.map(lambda x: x[place], found)


Tokens = BlockTokens | HostTokens


def gather_blocks(
  tokens: Tokens, ids: Array, mesh: Mesh | None = None
) -> BlockTokens:
  """The tokens of blocks; -1 gives the null block, without title and body.

  Args:
    tokens: of all N blocks, rows over the mesh.
    ids: [B, ...].
    mesh: where the index lies; None for one device.

  Returns:
    [B, ..., C-3] in int32, rows split over the mesh as a batch's are, where it
    divides them.
  """
  rows, there = jnp.maximum(ids, 0), ids >= 0
  if isinstance(tokens, HostTokens):
    split = mesh is not None and sharding.splits(ids.shape[0], mesh)
    found = _ask_host(tokens, rows, mesh, sharding.BATCH if split else P())
  elif mesh is None or mesh.size == 1:
    found = jax.tree.map(lambda x: x[rows], tokens)
  else:
    found = _sum_over_mesh(tokens, rows, mesh)
  return BlockTokens(
    token_ids=found.token_ids.astype(jnp.int32),
    title_lens=jnp.where(there, found.title_lens, 0),
    lens=jnp.where(there, found.lens, 0),
  )


def slices(
  tokens: Tokens, start: Array, size: int, num_shards: int, mesh: Mesh | None
) -> BlockTokens:
  """Rows start .. start + size - 1 of every shard, [shards, size, C-3].

  Args:
    tokens: of all N blocks.
    start: () row of a shard.
    size: how many.
    num_shards: that the rows are split into: the devices of the mesh.
    mesh: where the index lies; None for one device.
  """
  if isinstance(tokens, HostTokens):
    of_shard = tokens.num_rows // num_shards
    first = jnp.arange(num_shards, dtype=jnp.int32)[:, None] * of_shard + start
    ids = first + jnp.arange(size, dtype=jnp.int32)
    return _ask_host(tokens, ids, mesh, sharding.ROWS)

  def cut(x):  # [N, ...] -> [shards, size, ...]
    x = x.reshape(num_shards, -1, *x.shape[1:])
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)

  return jax.tree.map(cut, tokens)


def reorder(tokens: Tokens, rows: np.ndarray) -> Tokens:
  """The tokens of the blocks `rows` [N] in the places of 0, 1, 2, ..."""
  if isinstance(tokens, HostTokens):
    return dataclasses.replace(tokens, order=rows)
  return jax.tree.map(lambda x: x[rows], tokens)


def check_host() -> None:
  """Refuses HostTokens where no program can ask its host.

  Raises:
    InputError: JAX was told to leave the CPU out, which hands on what is asked.
  """
  try:
    jax.local_devices(backend="cpu")
  except RuntimeError as e:
    raise InputError(
      "config block_tokens=host: JAX has no CPU device here: add cpu to"
      f" JAX_PLATFORMS={jax.config.jax_platforms}, or give block_tokens=device"
    ) from e


def row_bytes(tokens: Tokens) -> int:
  """What is sent of a block."""
  if isinstance(tokens, HostTokens):
    return 0
  width, itemsize = tokens.token_ids.shape[1], tokens.token_ids.dtype.itemsize
  return -(-(width + _LENS) * itemsize // 4) * 4


def _ask_host(tokens, rows, mesh, spec):
  """Each device's rows from its own host."""

  def ask(rows):
    shape, width = rows.shape, tokens.block_len - NUM_SPECIALS
    lens = jax.ShapeDtypeStruct(shape, jnp.int32)
    words = jax.ShapeDtypeStruct((*shape, width), tokens.dtype)
    wanted = BlockTokens(words, lens, lens)
    return jax.pure_callback(
      tokens.read, wanted, rows, vmap_method="sequential"
    )

  if mesh is None or mesh.size == 1:
    return ask(rows)
  return jax.shard_map(
    ask, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
  )(rows)


def _sum_over_mesh(tokens, rows, mesh):
  """The rows [B, ...] of tokens [N], each from the device that has it."""
  split = sharding.splits(rows.shape[0], mesh)
  out = sharding.BATCH if split else P()

  @functools.partial(
    jax.shard_map,
    mesh=mesh,
    in_specs=(sharding.ROWS, P()),
    out_specs=out,
    check_vma=False,  # of a sum over all axes, cut where the batch is
  )
  def gather(shard, rows):
    at = rows - jax.lax.axis_index(sharding.AXES) * shard.lens.shape[0]
    here = (at >= 0) & (at < shard.lens.shape[0])
    own = jax.tree.map(lambda x: x[jnp.where(here, at, 0)], shard)
    words = jnp.where(here[..., None], _pack(own), 0)
    if split and mesh.shape["tensor"] == 1:
      words = jax.lax.psum_scatter(words, sharding.AXES, tiled=True)
    else:
      words = jax.lax.psum(words, sharding.AXES)
      if split:
        ways = sharding.batch_ways(mesh)
        part = words.reshape(ways, -1, *words.shape[1:])
        words = part[jax.lax.axis_index(sharding.BATCH[0])]
    return _unpack(words, shard.token_ids)

  return gather(tokens, rows)


def _pack(blocks: BlockTokens) -> Array:
  """Wordpieces and lengths [..., C-3] as one row of int32 [..., words].

  Lengths fit into the wordpieces' type, as no block has 32,768 of them. Whole
  words, for no library of collectives sums 16 bits.
  """
  ids = blocks.token_ids
  lens = jnp.stack([blocks.title_lens, blocks.lens], -1).astype(ids.dtype)
  row = jnp.concatenate([ids, lens], -1)
  each = 4 // ids.dtype.itemsize
  if each == 1:
    return row
  more = [(0, 0)] * (row.ndim - 1) + [(0, -row.shape[-1] % each)]
  row = jnp.pad(row, more).reshape(*row.shape[:-1], -1, each)
  return jax.lax.bitcast_convert_type(row, jnp.int32)


def _unpack(words: Array, like: Array) -> BlockTokens:
  """The blocks of _pack, with wordpieces as `like` [N, C-3]."""
  width, row = like.shape[1], words
  if like.dtype.itemsize < 4:
    row = jax.lax.bitcast_convert_type(words, like.dtype)
    row = row.reshape(*words.shape[:-1], -1)
  title_lens, lens = (
    row[..., width + i].astype(jnp.int32) for i in range(_LENS)
  )
  return BlockTokens(row[..., :width], title_lens, lens)
