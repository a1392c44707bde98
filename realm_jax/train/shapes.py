"""The shapes that one device of a run holds, for its plan; no array is made.

A device has its share of the batch, of the index and of the block tokens. It
computes with all of the params, and of them and their moments keeps the share
that sharding.RULES give it; what a tensor axis spares it is not counted.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from realm_jax import sharding
from realm_jax.config import InputError
from realm_jax.data.packing import NUM_SPECIALS
from realm_jax.plan import device, plan, wire
from realm_jax.plan.plan import Part, Program
from realm_jax.retrieval import block_tokens, modes, refresh
from realm_jax.retrieval.block_tokens import HostTokens, Tokens
from realm_jax.retrieval.candidates import Specials
from realm_jax.retrieval.refresher import Refresher
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.train import door, indexing, run
from realm_jax.train.state import TrainState
from realm_jax.types import BlockTokens, Inputs


class Vocabulary(NamedTuple):
  """What a plan knows of a tokenizer."""

  vocab_size: int
  pad_id: int = 0


@dataclasses.dataclass(frozen=True)
class PlannedCorpus:
  """Stands for corpus.Corpus where no data is prepared: sizes alone.

  Attributes:
    tokenizer: its size.
    store: as long as there are blocks.
    mesh: sharding.planned_mesh, or Whole.
    data_dir: for messages.
    specials: of any value.
  """

  tokenizer: Vocabulary
  store: range
  mesh: Any
  data_dir: str = "--blocks"
  specials: Specials = Specials(0, 1, 2, 3)  # noqa: RUF009


def array(*shape: int, dtype=jnp.int32) -> jax.ShapeDtypeStruct:
  """An array of token ids and the like."""
  return jax.ShapeDtypeStruct(shape, dtype)


def inputs(rows: int, length: int) -> Inputs:
  """Token sequences [R, T]."""
  return Inputs(*[array(rows, length)] * 3)


@dataclasses.dataclass(frozen=True)
class Whole:
  """In a corpus's mesh's place: its program is the whole mesh's, with global
  shapes, to be compiled on it."""

  mesh: Mesh
  size: int = 1


@dataclasses.dataclass(frozen=True)
class Device:
  """One device of a run, or its whole mesh.

  Attributes:
    config: of the run.
    corpus: the run's; without a mesh, where it is of one device.
    mesh: the run's.
    devices: of it; 1 for the whole.
    ways: that the batch is split; 1 for the whole.
    rows: of the index, that the device holds.
    shards: of the index among them.
    num_blocks: of all devices.
  """

  config: ConfigDict
  corpus: Any
  mesh: Mesh | AbstractMesh
  devices: int
  ways: int
  rows: int
  shards: int
  num_blocks: int

  @classmethod
  def of(cls, config: ConfigDict, corpus: Any) -> "Device":
    """One of the corpus's mesh."""
    whole = corpus.mesh.mesh if isinstance(corpus.mesh, Whole) else None
    mesh = whole or corpus.mesh
    shards, ways = (whole.size, 1) if whole else (1, sharding.batch_ways(mesh))
    devices, num_blocks = corpus.mesh.size, len(corpus.store)
    slice_size = config.refresh.slice_size if "refresh" in config else 1
    rows = refresh.padded_rows(num_blocks, devices * shards, slice_size)
    own = range(min(num_blocks, rows // devices))
    described = dataclasses.replace(corpus, mesh=whole, store=own)
    sizes = (devices, ways, rows // devices, shards, num_blocks)
    return cls(config, described, mesh, *sizes)

  @property
  def batch_size(self) -> int:
    """B of a device."""
    return max(self.config.train.batch_size // self.ways, 1)

  @property
  def refresh_every(self) -> int:
    """Steps between two versions; 0 for never."""
    section = self.config.refresh
    return 0 if section.mode == "never" else section.every_steps

  def state(self, params: Any) -> TrainState:
    """With the optimizer's moments."""
    tx = run.make_optimizer(self.config)
    return jax.eval_shape(lambda p: TrainState.create(p, tx), params)

  def state_sizes(self, state: TrainState) -> dict[str, int]:
    """Bytes of its state on a device, and of params that it is sent."""
    held = functools.partial(sharding.bytes_of, mesh=self.mesh)
    sizes = {
      "params": held(state.params),
      "optimizer moments": held(state.opt_state),
    }
    if self.mesh.shape["fsdp"] == 1:
      return sizes
    whole = sharding.planned_mesh({**self.mesh.shape, "fsdp": 1})
    more = sharding.bytes_of(state.params, whole) - sizes["params"]
    return {**sizes, "gathered params": more}

  def sent(
    self, params: Any, k: int = 0, read: int = 0, embeddings: int = 0
  ) -> dict[str, int]:
    """Bytes that a device sends in a step, see plan/wire.py.

    Args:
      params: of the run.
      k: blocks a query that a device finds; 0 without a search.
      read: blocks a query whose tokens are read.
      embeddings: embeddings a query that the whole batch is scored with.
    """
    config, mesh = self.config, self.mesh
    whole = sharding.planned_mesh({**mesh.shape, "fsdp": 1})
    held = functools.partial(sharding.bytes_of, mesh=whole)
    batch_size, word = config.train.batch_size, jnp.float32.dtype.itemsize
    vectors = batch_size * config.embedder.retriever_proj_size * word
    slices = k and config.refresh.mode == "interleaved"
    block = block_tokens.row_bytes(self.tokens) if read else 0
    return wire.step(
      mesh.shape,
      params=held(params),
      embedder=held(params["embedder"]) if slices else 0,
      queries=vectors if k else 0,
      short_list=batch_size * k * 2 * word,  # scores, ids
      blocks=batch_size * read * block,
      embeddings=vectors * embeddings,
    )

  @functools.cached_property
  def tokens(self) -> Tokens:
    """A device's rows."""
    rows = self.rows
    small = self.corpus.tokenizer.vocab_size <= 1 << 16
    dtype = jnp.dtype(jnp.uint16 if small else jnp.int32)
    width = self.config.block_len - NUM_SPECIALS
    if self.config.block_tokens == "host":
      return HostTokens(self.corpus.store, width + NUM_SPECIALS, rows, dtype)
    return BlockTokens(
      array(rows, width, dtype=dtype), array(rows), array(rows)
    )

  @property
  def on_host(self) -> dict[str, int]:
    """Bytes that the host keeps for its devices; of tokens, at the most."""
    tokens = self.tokens
    if not isinstance(tokens, HostTokens):
      return {}
    width = tokens.block_len - NUM_SPECIALS
    size = width * tokens.dtype.itemsize
    return {"block tokens": self.num_blocks * size}

  def refresher(self, retrieval: Retrieval) -> Refresher:
    """What embeds a device's rows."""
    section = self.config.refresh
    return modes.refresher_of(section.mode)(
      refresh.BlockEmbedder(retrieval, section.slice_size, self.shards),
      self.tokens,
      # a journal to replay is of the run's versions, and no device's
      dataclasses.replace(indexing.contract_of(self.config), replay=""),
      workdir="",
      manifest={},
      keep=section.keep,
      probe=None,
    )

  def index(self, params: Any) -> refresh.Index:
    """A device's rows, and those of the next version where it has them."""
    rows = self.tokens.num_rows
    size = self.config.embedder.retriever_proj_size
    index = refresh.Index(
      array(rows, size, dtype=jnp.float32),
      version=array(),
      params_step=array(),
      params=params["embedder"] if indexing.keeps_params(self.config) else None,
    )
    if self.config.refresh.mode != "interleaved":
      return index
    return index.replace(
      shadow=index.block_emb,
      shadow_params=params["embedder"],
      shadow_step=array(),
    )

  def index_parts(self, refresher, retrieval, params, k) -> dict[str, Part]:
    """Search of all queries in a device's rows, and its refresh a step."""
    index, config = self.index(params), self.config
    query_emb = array(
      config.train.batch_size, config.embedder.retriever_proj_size,
      dtype=jnp.float32,
    )  # fmt: skip
    search = functools.partial(retrieval.search, k=k)
    found = {"search": Part(search, (index.block_emb, query_emb))}
    if slices := refresher.slices_per_step:
      one = self.embed_all(refresher, params)
      found["refresh slice"] = dataclasses.replace(one, times=slices)
    return found

  def embed_all(self, refresher, params) -> Part:
    """A device's share of all blocks, slice by slice."""
    embedder, tokens = refresher.embedder, self.tokens
    out = self.index(params).block_emb
    total = embedder.num_slices(out.shape[0])
    args = (params["embedder"], tokens, out, array())
    return Part(embedder.embed_slice, args, total)

  def optimizer(self, state: TrainState) -> dict[str, Part]:
    """The update, all of it memory."""
    tx = run.make_optimizer(self.config)
    update = functools.partial(TrainState.apply_gradients, tx=tx)
    return {"optimizer": Part(update, (state, state.params))}


def on_mesh(args: tuple, mesh: Mesh) -> tuple:
  """The global shapes of a Program's args, with places: to compile it for.

  Args:
    args: of the program of a corpus with Whole(mesh).
    mesh: of any devices.
  """
  state, index, batch, tokens = args

  def place(tree, spec):
    return jax.tree.map(lambda x: _placed(x, NamedSharding(mesh, spec)), tree)

  state = jax.tree.map(
    _placed, state, sharding.infer_shardings(state, sharding.RULES, mesh)
  )
  if index is not None:
    index = place(index, P()).replace(
      block_emb=place(index.block_emb, sharding.ROWS),
      shadow=place(index.shadow, sharding.ROWS),
      shadow_params=index.shadow_params and state.params["embedder"],
    )
  return (
    state, index, place(batch, sharding.BATCH), place(tokens, sharding.ROWS),
  )  # fmt: skip


def _placed(x, place):
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)


def trained(function: Callable) -> Callable:
  """function(params, ...) with the backward pass to params."""
  return jax.value_and_grad(lambda *args: jnp.sin(function(*args)).sum())


def check_fits(program: Program) -> None:
  """The planner's check at the door of a training command.

  Not on a host, which has swap: tracing a step takes seconds there, as long as
  some of its runs. experiments.plan tells.

  Raises:
    InputError: the run does not fit the device's memory.
  """
  if device.is_host():
    return
  available = device.memory()
  if available is None:
    logging.warning(
      "%s does not tell its memory: whether the run fits was not checked",
      jax.local_devices()[0].device_kind,
    )
    return
  plan.check(program, plan.memory(program), available)


def check_devices(config: ConfigDict, corpus: Any) -> None:
  """As door.check_lengths, for a mesh that need not be there.

  Raises:
    InputError: names the field, its value and the mend.
  """
  if corpus.mesh.size < 1 or len(corpus.store) < 1:
    raise InputError(
      f"--devices={corpus.mesh.size} --blocks={len(corpus.store)}: wanted at"
      " least 1"
    )
  door.check_lengths(config, corpus)
