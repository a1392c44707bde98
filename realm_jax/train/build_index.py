"""Embeds the whole corpus with a run's newest params: a new index version.

A chunk of blocks is embedded and written at a time, so a build that was killed
goes on after its last chunk, and several jobs can share the chunks.
"""

import dataclasses
import math
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from realm_jax import backend, run_config, sharding
from realm_jax.config import InputError
from realm_jax.data.blocks import BlockStore
from realm_jax.data.tokenizer import Tokenizer
from realm_jax.plan import flops
from realm_jax.retrieval import defaults, rows, staging, vectors
from realm_jax.retrieval import index as versions
from realm_jax.retrieval.length_buckets import LengthBuckets
from realm_jax.train import checkpoint, indexing, run, telemetry
from realm_jax.train.corpus import check_same_data, open_corpus
from realm_jax.train.metrics import BlockProgress, note
from realm_jax.types import BlockTokens

# blocks a device embeds at a time: few, so that they are alike, but enough to
# fill it
_ON_CPU, _ELSEWHERE = 16, 256


@dataclasses.dataclass(frozen=True)
class Source:
  """What an index is made of: a run's newest params, and its blocks.

  Attributes:
    workdir: the run.
    tokenizer: of its data.
    store: the blocks of its newest index version, else of its data.
    blocks: where they are, if an index version has them.
    buckets: embeds blocks.
    mesh: all devices.
    params: of the embedder, on the host.
    manifest: what binds an index version to all this.
    flops: width -> FLOPs of a batch, of the first three that were asked for.
  """

  workdir: pathlib.Path
  tokenizer: Tokenizer
  store: BlockStore
  blocks: pathlib.Path | None
  buckets: LengthBuckets
  mesh: Mesh
  params: dict
  manifest: dict[str, Any]
  flops: dict[int, int] = dataclasses.field(default_factory=dict)

  def flops_of_batch(
    self, params: dict, tokens: BlockTokens, width: int
  ) -> int:
    """Of a batch of that width of such blocks."""
    if width not in self.flops and len(self.flops) == 3:
      return flops.at_length(width, self.flops)
    if width not in self.flops:
      traced = self.buckets.traced(params, tokens, width)
      self.flops[width], _ = flops.count(traced.jaxpr)
    return self.flops[width]


@dataclasses.dataclass(frozen=True)
class Reuse:
  """Rows that are copied from another version: the first of the new one.

  Attributes:
    path: of that version.
    ids: [n] its rows, ascending; the new row i is its row ids[i].
  """

  path: pathlib.Path
  ids: np.ndarray

  def read(self, first: int, last: int) -> np.ndarray:
    """The new rows first .. last - 1, as many of them as are copied."""
    ids = self.ids[first:last]
    start, end = (ids[0], ids[-1] + 1) if len(ids) else (0, 0)
    return rows.read(self.path / versions.ROWS, start, end)[ids - start]


def build_index(
  workdir: str | pathlib.Path,
  keep: int = defaults.KEEP,
  chunk_blocks: int = defaults.CHUNK_BLOCKS,
  shard: str = "",
) -> pathlib.Path | None:
  """Publishes the index of a run's newest checkpoint.

  Args:
    workdir: of a run of any kind.
    keep: versions kept on disk.
    chunk_blocks: blocks embedded and written at a time.
    shard: "i/n": only every n-th chunk from the i-th on, beside other jobs;
      the last of them to end publishes. "": all that is missing.

  Returns:
    The version's directory, None where other shards are missing still. A
    version of the very same params, tokenizer and corpus is not made twice.

  Raises:
    InputError: no run, no data, parts that don't belong together, another
      builder at work, or a full disk; what is finished is gone on with.
  """
  if keep < 1 or chunk_blocks < 1:
    raise InputError(
      f"keep={keep}, chunk_blocks={chunk_blocks}: wanted 1 or more"
    )
  job, count = _shard(shard)
  source = open_source(workdir)
  with staging.lock(workdir, shared=count > 1) as lock:
    if path := _published(source):
      return path
    stage = staging.Staging(
      workdir,
      {**source.manifest, "chunk_blocks": chunk_blocks},
      job=f"{job}-{count}",
      alone=count == 1,
      say=note,
    )
    with stage:
      size = len(source.store), source.buckets.size
      stage.open_rows(size, np.float32, chunk_blocks)
      embed_chunks(source, source.store, stage, (job, count))
    if not lock.alone():
      note(f"shard {shard}: done; others are at work, the last one publishes")
      return None
    if path := _published(source):
      return path
    if text := _missing(stage, count):
      note(f"shard {shard}: done; {text}")
      return None
    return publish(source, stage, source.manifest, keep, source.blocks)


def open_source(workdir: str | pathlib.Path, step: int | None = None) -> Source:
  """Opens a run's params and the blocks it searches now.

  Args:
    workdir: the run.
    step: of the checkpoint; None for the newest.

  Raises:
    InputError: no run, no data, or parts that don't belong together.
  """
  config = run_config.read(workdir)
  # each device embeds blocks of its own, and the run's may be another machine
  devices = math.prod(config.mesh.values())
  config.mesh.update(fsdp=1, tensor=1)
  config.mesh.data = devices if 0 < devices <= jax.device_count() else -1
  if jax.default_backend() == "cpu":  # such as a worker beside a run on a GPU
    config.attention = "xla"
  corpus = open_corpus(config, workdir)
  params, meta, step = checkpoint.restore_params(workdir, step)
  check_same_data(workdir, meta, corpus)
  blocks = versions.newest_blocks(workdir)
  store = BlockStore(blocks) if blocks else corpus.store
  buckets = LengthBuckets(
    # Of the data, not of these blocks: a corpus that has grown needs no other
    # programs.
    run.make_retrieval(config, corpus),
    config.block_len,
    slice_size() * corpus.mesh.size,
  )
  manifest = {
    **corpus.meta,
    "corpus_hash": store.meta["corpus_hash"],
    "template": indexing.template(config),
    "run": versions.run_id(workdir),
    "params_step": step,
    "params_hash": versions.params_hash(params["embedder"]),
  }
  return Source(
    pathlib.Path(workdir),
    corpus.tokenizer,
    store,
    blocks,
    buckets,
    corpus.mesh,
    params["embedder"],
    manifest,
  )


def embed_chunks(
  source: Source,
  store: BlockStore,
  stage: staging.Staging,
  shard: tuple[int, int] = (0, 1),
  reuse: Reuse | None = None,
) -> None:
  """Finishes the chunks of a shard that aren't.

  Args:
    source: the embedder and its params.
    store: the blocks.
    stage: with open rows.
    shard: (i, n), every n-th chunk from the i-th on.
    reuse: rows that need not be embedded.

  Raises:
    InputError: a full disk, or params that give numbers that are not finite.
  """
  finished = stage.finished()
  chunks = range(shard[0], stage.num_chunks, shard[1])
  sizes = {c: len(_rows_of(stage, c, len(store))) for c in chunks}
  done = sum(size for c, size in sizes.items() if c in finished)
  params = sharding.replicate(source.params, source.mesh)
  total, devices = sum(sizes.values()), source.mesh.size
  with BlockProgress(done, total, devices) as progress:
    for chunk in (c for c in chunks if c not in finished):
      embed_chunk(source, store, stage, params, chunk, progress.add, reuse)


def embed_chunk(
  source: Source,
  store: BlockStore,
  stage: staging.Staging,
  params: dict,
  chunk: int,
  on_blocks: Callable[[int, int], None],
  reuse: Reuse | None = None,
) -> None:
  """As embed_chunks, one chunk.

  Args:
    params: of the source, on its mesh.
    on_blocks: called with numbers of blocks as they are embedded, and the
      FLOPs that it took.
  """
  began = time.monotonic()
  ids = _rows_of(stage, chunk, len(store))
  first, last = ids.start, ids.stop
  parts = [] if reuse is None else [reuse.read(first, last)]
  copied = sum(map(len, parts))
  on_blocks(copied, 0)
  tokens = store.take(np.arange(first + copied, last), source.buckets.block_len)
  total = 0

  def on_batch(num_blocks, width):
    nonlocal total
    count = source.flops_of_batch(params, tokens, width)
    total += count
    on_blocks(num_blocks, count)

  parts.append(source.buckets.embed(params, tokens, on_batch))
  emb = np.concatenate(parts)
  vectors.check_finite(f"blocks {first}..{last - 1}, embedded", emb)
  stage.add(chunk, emb, time.monotonic() - began, total)


def slice_size() -> int:
  """Blocks that a device embeds at a time."""
  return _ON_CPU if backend.name() == "cpu" else _ELSEWHERE


def _rows_of(stage, chunk, num_blocks) -> range:
  first = chunk * stage.chunk_rows
  return range(first, min(first + stage.chunk_rows, num_blocks))


def publish(
  source: Source,
  stage: staging.Staging,
  manifest: dict[str, Any],
  keep: int | None,
  blocks: pathlib.Path | None = None,
) -> pathlib.Path:
  """Publishes a finished build; old versions go, unless keep is None."""
  path = stage.publish(manifest, blocks)
  version = int(path.name)
  if keep is not None:
    versions.retain(source.workdir, keep, pinned=(version,))
  made = versions.read_manifest(source.workdir, version)
  num_blocks, seconds = made["shape"][0], max(made["seconds"], 1e-3)
  rates = telemetry.in_words(made["flops"] / seconds, source.mesh.size)
  rates = {"blocks/s": f"{num_blocks / seconds:.0f}", **rates}
  said = ", ".join(f"{value} {unit}" for unit, value in rates.items())
  note(f"{path}: {num_blocks} blocks in {seconds:.1f} s, {said}")
  return path


def _published(source: Source) -> pathlib.Path | None:
  """The newest version, if it is of these params, this tokenizer and corpus."""
  workdir = source.workdir
  newest = versions.latest_version(workdir)
  if newest is None:
    return None
  try:
    if not versions.matches(workdir, newest, source.manifest):
      return None
  except InputError as e:  # damaged: a new one is what mends it
    note(f"{e}")
    return None
  note(f"{workdir}: index version {newest} is of these params already")
  return versions.version_path(workdir, newest)


def _missing(stage: staging.Staging, count: int) -> str:
  """Which chunks are not finished, in words; "" where all are."""
  finished = stage.finished()
  missing = [c for c in range(stage.num_chunks) if c not in finished]
  shards = ", ".join(map(str, sorted({c % count for c in missing})))
  return missing and (
    f"{len(missing)} of {stage.num_chunks} chunks are missing, of shards"
    f" {shards}: start those, or build without --shard"
  )


def _shard(text: str) -> tuple[int, int]:
  """ "i/n" as numbers; "" is all there is."""
  found = re.fullmatch(r"(\d+)/(\d+)", text or "0/1")
  job, count = map(int, found.groups()) if found else (1, 0)
  if job >= count:
    raise InputError(
      f"--shard={text}: wanted i/n with i from 0 to n - 1, such as 0/4"
    )
  return job, count
