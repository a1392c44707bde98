"""What keeps a run's index fresh; the loop calls it at each step boundary.

`inline` stops training and embeds all blocks; `interleaved` has each training
step embed a few slices into a shadow copy, with params frozen at the start of
the round, and swaps when the round is over. Both are functions of the step
number alone, so they are deterministic and the same in every process. The
fourth mode, `worker`, is in follower.py.
"""

import array
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from realm_jax import distributed
from realm_jax.retrieval import index as versions
from realm_jax.retrieval import journal
from realm_jax.retrieval.block_tokens import Tokens
from realm_jax.retrieval.contract import Contract
from realm_jax.retrieval.refresh import BlockEmbedder, Index
from realm_jax.sharding import fetch, make_rows, replicate, rows_of_process
from realm_jax.types import Array, Inputs

_PROBE_K = 5  # blocks of a probe query that a swap is judged by


class Fresh(NamedTuple):
  """A version that training can go on with.

  Attributes:
    block_emb: [N, P], placed as the index is.
    version: its number.
    params_step: of the params that made it.
    params_hash: of those params.
    params: the embedder's, where they are here.
  """

  block_emb: Array
  version: int
  params_step: int
  params_hash: str
  params: dict | None = None


class Refresher:
  """An index that stays what it was (`never`), and what all modes share.

  Args:
    embedder: embeds blocks.
    tokens: of all blocks, on the mesh.
    contract: how often, and how old at the most.
    workdir: the run; versions and the journal of swaps go to its index/.
    manifest: what a version is bound to (hashes, template).
    keep: versions kept on disk.
    probe: [B, Q] queries that the overlap of two versions is measured on.
    keep_params: whether the index has the embedder's params that made it.
    oldest_checkpoint: the step from which on the journal may be needed.
    say: takes a line for the person who watches.
  """

  slices_per_step = 0  # that a training step embeds

  def __init__(
    self,
    embedder: BlockEmbedder,
    tokens: Tokens,
    contract: Contract,
    *,
    workdir: str | pathlib.Path,
    manifest: dict,
    keep: int,
    probe: Inputs,
    keep_params: bool = False,
    oldest_checkpoint: Callable[[], int] = lambda: 0,
    say: Callable[[str], None] = lambda text: None,
  ):
    self.embedder, self.tokens, self.contract = embedder, tokens, contract
    self.workdir, self.keep = pathlib.Path(workdir), keep
    self.probe, self.say = probe, say
    self._keep_params = keep_params
    self._manifest, self._oldest_checkpoint = manifest, oldest_checkpoint
    self._probe_ids = jax.jit(self._search_probe)
    self._ages, self._lost = _Ages(), 0.0

  @property
  def manifest(self) -> dict:
    """What every version of this run has in its manifest."""
    return {**self._manifest, "run": versions.run_id(self.workdir)}

  def first(self, params, params_step: int = 0) -> Index:
    """Embeds all blocks and publishes them as version 0."""
    began = time.monotonic()
    block_emb = self.embedder.embed_all(params["embedder"], self.tokens)
    index = self._index(block_emb, params, params_step)
    params_hash = versions.params_hash(fetch(params["embedder"]))
    self._publish(index, params_hash, time.monotonic() - began)
    return index

  def shell(self, params, num_rows: int | None = None) -> Index:
    """An index of the right shapes and places, to restore a saved one into.

    Args:
      params: of the run.
      num_rows: of the one saved, where other devices wanted others; see `fit`.
    """
    rows = self.tokens.num_rows
    if num_rows in (None, rows):
      empty = self.embedder.empty(rows)
    else:
      size = self.embedder.retrieval.embedder.config.retriever_proj_size
      empty = self._everywhere(np.zeros((num_rows, size), np.float32))
    return self._index(empty, params, 0)

  def fit(self, index: Index) -> Index:
    """An index that was restored, with the rows that these devices want."""
    if index.block_emb.shape[0] == self.tokens.num_rows:
      return index
    return index.replace(block_emb=self._place(fetch(index.block_emb)))

  def go_on(self, step: int) -> None:
    """Before a start at a step: the journal loses what happens again."""
    distributed.by_process_0(lambda: journal.truncate_swaps(self.workdir, step))

  def __call__(
    self,
    step: int,
    state,
    index: Index,
    told_to_stop: Callable[[], bool] = lambda: False,
  ) -> tuple[Index, dict]:
    """Swaps in a new version where one is due after `step` steps.

    Args:
      step: steps done.
      state: with the params of that step.
      index: that the last step searched.
      told_to_stop: asked where this waits for something.

    Returns:
      The index, and the swap's figures: refresh_seconds, swap_overlap (share
      of the probe queries' top k that both versions find, which is the recall
      of the older against the newer), and more where they are known.

    Raises:
      TooOld: nothing fresh came in time.
    """
    self._ages.mark(step)
    return self._refresh(step, state, index, told_to_stop)

  def watch(self, step: int, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of the moment in which a step's own are logged.

    Returns:
      staleness_seconds: since training was at the step whose params made the
      index, or since this process began. refresh_share: of the time since
      then, what was spent at step boundaries.
    """
    made_at = step - 1 - int(figures.get("index_staleness", 0))
    return {
      "staleness_seconds": self._ages.since(made_at),
      "refresh_share": self._lost / max(self._ages.all(), 1e-6),
    }

  def _refresh(self, step, state, index, told_to_stop) -> tuple[Index, dict]:
    del step, state, told_to_stop
    return index, {}

  def _index(self, block_emb, params, step) -> Index:
    return Index(
      block_emb=block_emb,
      version=self._scalar(0),
      params_step=self._scalar(step),
      params=self._kept(params["embedder"]),
    )

  def _kept(self, params) -> dict | None:
    """A copy that survives the donation of the train state."""
    return jax.tree.map(jnp.copy, params) if self._keep_params else None

  def _is_due(self, step: int) -> bool:
    return step > 0 and step % self.contract.every_steps == 0

  def _begin(self, state) -> float:
    """The time when the steps under way have ended: from here on it is ours."""
    jax.block_until_ready(state.params)
    return time.monotonic()

  def _swap(
    self, step, state, index, fresh: Fresh, began: float, publish: bool = True
  ) -> tuple[Index, dict]:
    """Puts a version in the index's place and writes it down."""
    before = fetch(self._probe_ids(state.params, index.block_emb))
    after = fetch(self._probe_ids(state.params, fresh.block_emb))
    index = index.replace(
      block_emb=fresh.block_emb,
      version=self._scalar(fresh.version),
      params_step=self._scalar(fresh.params_step),
      params=self._kept(fresh.params),
    )
    if publish:
      seconds = time.monotonic() - began
      self._publish(index, fresh.params_hash, seconds)
    overlap, seconds = _overlap(before, after), time.monotonic() - began
    self._lost += seconds
    self._write_down(
      {
        "step": step,
        "version": fresh.version,
        "params_step": fresh.params_step,
        "params_hash": fresh.params_hash,
        "overlap": overlap,
        "seconds": seconds,
      }
    )
    return index, {"swap_overlap": overlap, "refresh_seconds": seconds}

  def _write_down(self, swap: dict[str, Any]) -> None:
    distributed.by_process_0(lambda: journal.append_swap(self.workdir, swap))

  def _scalar(self, value: int) -> Array:
    """An int32 on every device, placed as a step leaves it: a value placed
    otherwise would have the whole step compiled anew."""
    return self._everywhere(np.asarray(value, np.int32))

  def _everywhere(self, value: np.ndarray) -> Array:
    mesh = self.embedder.retrieval.mesh
    return jnp.asarray(value) if mesh is None else replicate(value, mesh)

  def _place(self, block_emb: np.ndarray, first: int = 0) -> Array:
    """Blocks' rows, from `first` on those of this process, where the index has
    its own, and its padding."""
    block_emb = block_emb[: self.embedder.retrieval.num_blocks - first]

    def read(start, end):
      part = block_emb[start - first : end - first]
      return np.pad(part, ((0, end - start - len(part)), (0, 0)))

    num_rows, mesh = self.tokens.num_rows, self.embedder.retrieval.mesh
    if mesh is None:
      return jnp.asarray(read(0, num_rows))
    return make_rows(read, num_rows, mesh)

  def _my_blocks(self) -> tuple[int, int]:
    """First and one past the last block whose row this process has."""
    num_rows, mesh = self.tokens.num_rows, self.embedder.retrieval.mesh
    span = (0, num_rows) if mesh is None else rows_of_process(num_rows, mesh)
    first, last = np.minimum(span, self.embedder.retrieval.num_blocks)
    return int(first), int(last)

  def _publish(self, index, params_hash, seconds):
    versions.publish_version(
      self.workdir,
      int(index.version),
      index.block_emb,
      {
        **self.manifest,
        "params_step": int(index.params_step),
        "params_hash": params_hash,
        "seconds": seconds,
      },
      num_rows=self.embedder.retrieval.num_blocks,
    )
    self._retain(int(index.version))

  def _retain(self, version: int) -> None:
    """Deletes old versions, but those that a resume would swap in again."""
    if jax.process_index():
      return
    swaps = journal.read_swaps(self.workdir)
    since = self._oldest_checkpoint()
    needed = {s["version"] for s in swaps if s["step"] >= since}
    versions.retain(self.workdir, self.keep, pinned=needed | {version})

  def _search_probe(self, params, block_emb):
    retrieval = self.embedder.retrieval
    query_emb = retrieval.embed_query(params, self.probe)
    k = min(_PROBE_K, retrieval.num_blocks)
    return retrieval.search(block_emb, query_emb, k)[1]


class Inline(Refresher):
  """Training stops, and all blocks are embedded with its newest params."""

  def _refresh(self, step, state, index, told_to_stop):
    del told_to_stop
    if not self._is_due(step):
      return index, {}
    began = self._begin(state)
    params = state.params["embedder"]
    block_emb = self.embedder.embed_all(params, self.tokens)
    seconds = time.monotonic() - began
    fresh = Fresh(
      block_emb,
      int(index.version) + 1,
      step,
      versions.params_hash(fetch(params)),
      params,
    )
    index, figures = self._swap(step, state, index, fresh, began)
    blocks = self.embedder.retrieval.num_blocks
    return index, {**figures, "refresh_blocks_per_second": blocks / seconds}


class Interleaved(Refresher):
  """Each training step embeds a few slices of the next version."""

  @property
  def slices_per_step(self) -> int:
    """Slices a training step embeds."""
    total = self.embedder.num_slices(self.tokens.num_rows)
    return -(-total // self.contract.every_steps)

  def _refresh(self, step, state, index, told_to_stop):
    del told_to_stop
    if not self._is_due(step):
      return index, {}
    began = self._begin(state)
    fresh = Fresh(
      index.shadow,
      int(index.version) + 1,
      int(index.shadow_step),
      versions.params_hash(fetch(index.shadow_params)),
      index.shadow_params,
    )
    index, figures = self._swap(step, state, index, fresh, began)
    return self._start_round(index, state.params, step), figures

  def _index(self, block_emb, params, step) -> Index:
    index = super()._index(block_emb, params, step)
    return self._start_round(index, params, step)

  def fit(self, index):
    """As Refresher.fit; the round is made whole with its own params."""
    if index.block_emb.shape[0] == self.tokens.num_rows:
      return index
    shadow = self.embedder.embed_all(index.shadow_params, self.tokens)
    return super().fit(index).replace(shadow=shadow)

  def _start_round(self, index, params, step):
    """A fresh shadow, and a copy of the params that will fill it.

    The copy survives the donation of the train state.
    """
    return index.replace(
      shadow=jnp.zeros_like(index.block_emb),
      shadow_params=jax.tree.map(jnp.copy, params["embedder"]),
      shadow_step=self._scalar(step),
    )


class _Ages:
  """When training was at which step, by a clock that never jumps."""

  def __init__(self):
    self._first, self._times = 0, array.array("d")

  def mark(self, step: int) -> None:
    """Training is at this step; they come one after the other."""
    if not self._times:
      self._first = step
    self._times.append(time.monotonic())

  def since(self, step: int) -> float:
    """Seconds since a step; since the first that is known, if it is older."""
    return time.monotonic() - self._times[max(step - self._first, 0)]

  def all(self) -> float:
    """Seconds since the first step that is known."""
    return time.monotonic() - self._times[0]


def _overlap(before: np.ndarray, after: np.ndarray) -> float:
  """Mean share of ids [B, k] that both have."""
  both = [np.intersect1d(a, b).size for a, b in zip(before, after, strict=True)]
  return float(np.mean(both) / before.shape[1])
