"""The live index and how it is kept fresh while training goes on.

Blocks are embedded slice by slice, each shard of the mesh embedding rows that it
holds itself. `inline` stops training and embeds them all; `interleaved` has
each training step embed a few slices into a shadow copy, with params frozen at
the start of the round, and swaps when the round is over. Both are functions of
the step number alone, so they are deterministic and the same in every process.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from realm_jax.config import InputError
from realm_jax.retrieval import index as versions
from realm_jax.retrieval import journal
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.sharding import replicate
from realm_jax.types import Array, BlockTokens, Inputs

MODES = ("never", "inline", "interleaved")
_MAX_IN_FLIGHT = 8  # slices queued at a time
_PROBE_K = 5  # blocks of a probe query that a swap is judged by


@struct.dataclass
class Index:
  """The index as a step sees it.

  Attributes:
    block_emb: [N, P], searched.
    version: () int32.
    params_step: () int32, the training step of the params that made it.
    shadow: [N, P] the next version in the making, or None.
    shadow_params: the embedder's params that make it, or None.
    shadow_step: () int32, the step those params are of, or None.
  """

  block_emb: Array
  version: Array
  params_step: Array
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

  def embed_slice(
    self, params, tokens: BlockTokens, out: Array, i: Array
  ) -> Array:
    """Writes slice i of every shard into out [N, P]; past the end: the last."""
    start = jnp.minimum(i, self.num_slices(out.shape[0]) - 1) * self.slice_size

    def view(x):  # [N, ...] -> [shards, rows of a shard, ...]
      return x.reshape(self.num_shards, -1, *x.shape[1:])

    rows = jax.tree.map(
      lambda x: jax.lax.dynamic_slice_in_dim(
        view(x), start, self.slice_size, axis=1
      ),
      tokens,
    )
    emb = self.retrieval.embed_blocks({"embedder": params}, rows)
    new = jax.lax.dynamic_update_slice_in_dim(
      view(out), emb.astype(out.dtype), start, axis=1
    )
    return new.reshape(out.shape)

  def advance(
    self,
    index: Index,
    tokens: BlockTokens,
    step: Array,
    slices_per_step: int,
  ) -> Index:
    """Embeds this step's slices of the shadow; part of a training step."""
    first = (step - index.shadow_step) * slices_per_step

    def embed(i, shadow):
      return self.embed_slice(index.shadow_params, tokens, shadow, first + i)

    left = self.num_slices(index.shadow.shape[0]) - first
    count = jnp.clip(left, 0, slices_per_step)  # the last steps have less to do
    return index.replace(
      shadow=jax.lax.fori_loop(0, count, embed, index.shadow)
    )

  def embed_all(
    self,
    params,
    tokens: BlockTokens,
    dtype=jnp.float32,
    on_slice: Callable[[int, int], None] = lambda done, total: None,
  ) -> Array:
    """Embeds every block with the embedder's params -> [N, P]."""
    num_rows = tokens.lens.shape[0]
    size = self.retrieval.embedder.config.retriever_proj_size
    out = _empty_rows(num_rows, size, dtype, tokens.lens)
    total = self.num_slices(num_rows)
    for i in range(total):
      out = _embed_slice(self, params, tokens, out, np.int32(i))
      if i % _MAX_IN_FLIGHT == _MAX_IN_FLIGHT - 1:
        out.block_until_ready()
      on_slice(i + 1, total)
    return out.block_until_ready()


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def _embed_slice(embedder, params, tokens, out, i):
  return embedder.embed_slice(params, tokens, out, i)


def _empty_rows(num_rows, size, dtype, like):
  """Zeros [N, P] with the rows where those of `like` [N] are."""
  sharding = getattr(like, "sharding", None)
  return jax.device_put(np.zeros((num_rows, size), dtype), sharding)


class Refresher:
  """Keeps a run's index fresh: called by the loop at each step boundary.

  Args:
    embedder: embeds blocks.
    tokens: of all blocks, on the mesh.
    mode: one of MODES.
    every_steps: a new version each so many steps.
    workdir: the run; versions and the journal of swaps go to its index/.
    manifest: what a version is bound to (hashes, template).
    keep: versions kept on disk.
    probe: [B, Q] queries that the overlap of two versions is measured on.

  Raises:
    InputError: an unknown mode, or every_steps < 1.
  """

  def __init__(
    self,
    embedder: BlockEmbedder,
    tokens: BlockTokens,
    *,
    mode: str,
    every_steps: int,
    workdir: str | pathlib.Path,
    manifest: dict,
    keep: int,
    probe: Inputs,
  ):
    if mode not in MODES:
      raise InputError(
        f"config refresh.mode={mode!r}: wanted one of {', '.join(MODES)}"
      )
    if every_steps < 1:
      raise InputError(
        f"config refresh.every_steps={every_steps}: wanted at least 1"
      )
    self.embedder, self.tokens = embedder, tokens
    self.mode, self.every_steps = mode, every_steps
    self.workdir, self.manifest = pathlib.Path(workdir), manifest
    self.keep, self.probe = keep, probe
    self._probe_ids = jax.jit(self._search_probe)

  @property
  def slices_per_step(self) -> int:
    """Slices a training step embeds: 0 unless interleaved."""
    if self.mode != "interleaved":
      return 0
    total = self.embedder.num_slices(self.tokens.lens.shape[0])
    return -(-total // self.every_steps)

  def first(self, params, params_step: int = 0) -> Index:
    """Embeds all blocks and publishes them as version 0."""
    began = time.monotonic()
    block_emb = self.embedder.embed_all(params["embedder"], self.tokens)
    index = self._index(block_emb, params, params_step)
    self._publish(index, params["embedder"], time.monotonic() - began)
    return index

  def shell(self, params) -> Index:
    """An index of the right shapes and places, to restore a saved one into."""
    size = self.embedder.retrieval.embedder.config.retriever_proj_size
    rows = self.tokens.lens.shape[0]
    empty = _empty_rows(rows, size, jnp.float32, self.tokens.lens)
    return self._index(empty, params, 0)

  def _index(self, block_emb, params, step) -> Index:
    index = Index(
      block_emb=block_emb,
      version=self._scalar(0),
      params_step=self._scalar(step),
    )
    if self.mode == "interleaved":
      index = self._start_round(index, params, step)
    return index

  def __call__(self, step: int, state, index: Index) -> tuple[Index, dict]:
    """Swaps in a new version where one is due at this step.

    Returns:
      The index, and the swap's figures: refresh_seconds, refresh_blocks_per_s,
      swap_overlap (share of the probe queries' top k found by both versions).
    """
    if self.mode == "never" or step == 0 or step % self.every_steps:
      return index, {}
    began = time.monotonic()
    if self.mode == "inline":
      params, made_at = state.params["embedder"], step
      fresh = self.embedder.embed_all(params, self.tokens)
    else:
      params, made_at = index.shadow_params, int(index.shadow_step)
      fresh = index.shadow
    before = np.asarray(self._probe_ids(state.params, index.block_emb))
    after = np.asarray(self._probe_ids(state.params, fresh))
    index = index.replace(
      block_emb=fresh,
      version=self._scalar(int(index.version) + 1),
      params_step=self._scalar(made_at),
    )
    seconds = time.monotonic() - began
    self._publish(index, params, seconds)
    if self.mode == "interleaved":
      index = self._start_round(index, state.params, step)
    overlap = _overlap(before, after)
    journal.append_swap(
      self.workdir,
      {
        "step": step,
        "version": int(index.version),
        "params_step": made_at,
        "overlap": overlap,
        "seconds": seconds,
      },
    )
    blocks = self.embedder.retrieval.num_blocks
    return index, {
      "swap_overlap": overlap,
      "refresh_seconds": seconds,
      "refresh_blocks_per_second": blocks / seconds,
    }

  def _start_round(self, index, params, step):
    """A fresh shadow, and a copy of the params that will fill it.

    The copy survives the donation of the train state.
    """
    return index.replace(
      shadow=jnp.zeros_like(index.block_emb),
      shadow_params=jax.tree.map(jnp.copy, params["embedder"]),
      shadow_step=self._scalar(step),
    )

  def _scalar(self, value: int) -> Array:
    """An int32 on every device, placed as a step leaves it: a value placed
    otherwise would have the whole step compiled anew."""
    mesh = self.embedder.retrieval.mesh
    value = np.asarray(value, np.int32)
    return jnp.asarray(value) if mesh is None else replicate(value, mesh)

  def _publish(self, index, params, seconds):
    versions.publish_version(
      self.workdir,
      int(index.version),
      index.block_emb[: self.embedder.retrieval.num_blocks],
      {
        **self.manifest,
        "params_step": int(index.params_step),
        "params_hash": versions.params_hash(params),
        "seconds": seconds,
      },
    )
    versions.retain(self.workdir, self.keep, pinned=(int(index.version),))

  def _search_probe(self, params, block_emb):
    retrieval = self.embedder.retrieval
    query_emb = retrieval.embed_query(params, self.probe)
    k = min(_PROBE_K, retrieval.num_blocks)
    return retrieval.search(block_emb, query_emb, k)[1]


def _overlap(before: np.ndarray, after: np.ndarray) -> float:
  """Mean share of ids [B, k] that both have."""
  both = [np.intersect1d(a, b).size for a, b in zip(before, after, strict=True)]
  return float(np.mean(both) / before.shape[1])
