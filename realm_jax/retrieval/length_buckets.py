"""Embeds blocks in batches of like length, so that little time goes to padding.

Blocks are sorted by length and cut into batches; a batch is as wide as its
longest block, rounded up to one of a few widths, for each of which a program
is compiled. The widths depend on nothing but the longest that a block can be,
so a corpus that has grown is embedded by the programs that are there.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from realm_jax import sharding
from realm_jax.data.packing import NUM_SPECIALS
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.types import BlockTokens

_WIDTHS = 12  # at the most: each costs a compilation
_MIN_STEP = 16  # wordpieces between two widths
_MULTIPLE = 8  # of a width, as the hardware's tiles want it
_MAX_IN_FLIGHT = 8  # batches queued at a time


@dataclasses.dataclass(frozen=True)
class LengthBuckets:
  """Embeds any blocks of a corpus.

  Attributes:
    retrieval: holds the embedder, and the mesh that a batch is split over.
    block_len: C, the longest.
    batch_size: blocks embedded at a time, over all devices.
    num_widths: lengths that a batch can have; 1: all are padded to C.
  """

  retrieval: Retrieval
  block_len: int
  batch_size: int
  num_widths: int = _WIDTHS

  @property
  def widths(self) -> tuple[int, ...]:
    """The lengths that a batch can have, C the last of them."""
    if self.num_widths == 1:
      return (self.block_len,)
    step = -(-self.block_len // self.num_widths // _MULTIPLE) * _MULTIPLE
    step = max(step, _MIN_STEP)
    return (*range(step, self.block_len, step), self.block_len)

  @property
  def size(self) -> int:
    """P."""
    return self.retrieval.embedder.config.retriever_proj_size

  def embed(
    self,
    params,
    tokens: BlockTokens,
    on_batch: Callable[[int, int], None] = lambda num_blocks, width: None,
  ) -> np.ndarray:
    """Embeds blocks [n, C-3] of the host -> [n, P] float32, in their order.

    A device does not wait: while it computes a batch, the next ones are on
    their way to it or there, and vectors of those before on their way back.

    Args:
      params: of the embedder, on every device.
      tokens: NumPy arrays.
      on_batch: called with the number of blocks of each batch, and its width.
    """
    out = np.empty((len(tokens.lens), self.size), np.float32)
    flight = collections.deque()

    def land():
      ids, width, emb = flight.popleft()
      out[ids] = np.asarray(emb)[: len(ids)]
      on_batch(len(ids), width)

    for ids in self._batches(tokens.lens):
      batch = self._place(self._pad(tokens, ids))
      emb = _embed(self.retrieval, params, batch)
      emb.copy_to_host_async()  # once it is there; nobody waits for it here
      flight.append((ids, self._width(tokens.lens[ids]), emb))
      if len(flight) == _MAX_IN_FLIGHT:
        land()
    while flight:
      land()
    return out

  def traced(
    self, params, tokens: BlockTokens, width: int
  ) -> jax.stages.Traced:
    """The program that embeds batches of a width, of such blocks."""
    rows = self.batch_size
    empty = jax.tree.map(
      lambda x: np.zeros((rows, *x.shape[1:]), x.dtype), tokens
    )
    cut = empty.replace(token_ids=empty.token_ids[:, : width - NUM_SPECIALS])
    return _embed.trace(self.retrieval, params, self._place(cut))

  def padding(self, lens: np.ndarray) -> float:
    """Share of padding among the wordpieces embedded for blocks of lens [n]."""
    room = self.batch_size * sum(self.batch_widths(lens))
    return 1 - float((lens + NUM_SPECIALS).sum()) / room

  def batch_widths(self, lens: np.ndarray) -> list[int]:
    """The length of each batch that blocks of lens [n] are embedded in."""
    return [self._width(lens[ids]) for ids in self._batches(lens)]

  def _batches(self, lens):
    order = np.argsort(lens, kind="stable")
    # The batch with rows to spare is that of the shortest blocks.
    ends = range(len(order), 0, -self.batch_size)
    return [order[max(0, end - self.batch_size) : end] for end in ends]

  def _width(self, lens):
    longest = int(lens.max()) + NUM_SPECIALS
    return next(width for width in self.widths if width >= longest)

  def _pad(self, tokens, ids):
    """The batch of some blocks, cut to its width, with rows to spare."""
    width = self._width(tokens.lens[ids]) - NUM_SPECIALS
    rows = np.zeros(self.batch_size, ids.dtype)  # those to spare: any block
    rows[: len(ids)] = ids
    return BlockTokens(
      tokens.token_ids[rows, :width],
      np.minimum(tokens.title_lens[rows], width),
      np.minimum(tokens.lens[rows], width),
    )

  def _place(self, batch):
    mesh = self.retrieval.mesh
    if mesh is None:
      return jax.device_put(batch)
    return jax.tree.map(lambda x: sharding.shard_rows(x, mesh), batch)


@functools.partial(jax.jit, static_argnums=0)
def _embed(retrieval, params, batch):
  return retrieval.embed_blocks({"embedder": params}, batch)
