"""Embeds the whole corpus with a finished run's params: a new index version."""

import pathlib
import time

from ml_collections import ConfigDict

from realm_jax import sharding
from realm_jax.retrieval import index as versions
from realm_jax.retrieval.refresh import BlockEmbedder
from realm_jax.train import checkpoint, run
from realm_jax.train.metrics import note

_SLICE = 128  # blocks a device embeds at a time
_REPORT_SECONDS = 5.0


def build_index(workdir: str | pathlib.Path, keep: int = 2) -> pathlib.Path:
  """Publishes the index of a run's newest checkpoint.

  Args:
    workdir: of a run of any kind.
    keep: versions kept on disk.

  Returns:
    The version's directory. A version of the very same params, tokenizer and
    corpus is not made twice.

  Raises:
    InputError: no run, no data, or parts that don't belong together.
  """
  config = ConfigDict(checkpoint.read_run(workdir))
  corpus = run.open_corpus(config, workdir)
  params, meta, step = checkpoint.restore_params(workdir)
  run.check_same_data(workdir, meta, corpus)
  params = params["embedder"]
  manifest = {
    **corpus.meta,
    "template": run.template(config),
    "params_step": step,
    "params_hash": versions.params_hash(params),
  }
  newest = versions.latest_version(workdir)
  if newest is not None and versions.matches(workdir, newest, manifest):
    note(f"{workdir}: index version {newest} is of these params already")
    return versions.version_path(workdir, newest)
  retrieval = run.make_retrieval(config, corpus)
  embedder = BlockEmbedder(retrieval, _SLICE, corpus.mesh.size)
  began = time.monotonic()
  block_emb = embedder.embed_all(
    sharding.replicate(params, corpus.mesh),
    corpus.tokens(config.block_len, _SLICE),
    on_slice=_Pace(retrieval.num_blocks),
  )
  seconds = time.monotonic() - began
  version = 0 if newest is None else newest + 1
  path = versions.publish_version(
    workdir,
    version,
    block_emb[: retrieval.num_blocks],
    {**manifest, "seconds": seconds},
  )
  versions.retain(workdir, keep, pinned=(version,))
  note(
    f"{path}: {retrieval.num_blocks} blocks in {seconds:.1f} s,"
    f" {retrieval.num_blocks / seconds:.0f} blocks/s"
  )
  return path


class _Pace:
  """Says how far a build is, every few seconds."""

  def __init__(self, num_blocks: int):
    self._num_blocks = num_blocks
    self._began = self._said = time.monotonic()

  def __call__(self, done: int, total: int) -> None:
    now = time.monotonic()
    if now - self._said < _REPORT_SECONDS:
      return
    self._said = now
    pace = done / (now - self._began)  # slices a second
    note(
      f"{done / total:.0%} embedded,"
      f" {pace * self._num_blocks / total:.0f} blocks/s,"
      f" {(total - done) / pace:.0f} s to go"
    )
