"""A living corpus: articles come and go, and the index follows, row by row.

The next index version has a block store of its own, with the blocks that stayed
in their order and the new ones behind them. The rows of the former are copied,
only the latter are embedded. A deleted block is in no file of the version, so
nothing can find it.
"""

import pathlib
from collections.abc import Collection
from typing import Any

import numpy as np

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data import corpora, update_blocks
from realm_jax.data.blocks import BlockStore
from realm_jax.retrieval import defaults, staging
from realm_jax.retrieval import index as versions
from realm_jax.retrieval import manifest as manifests
from realm_jax.train import build_index
from realm_jax.train.build_index import Reuse, Source
from realm_jax.train.metrics import note

_KEPT = "kept.npy"  # in the staging directory: rows of the parent that stay


def update_corpus(
  workdir: str | pathlib.Path,
  *,
  add: str = "",
  delete: Collection[str] = (),
  replace: str = "",
  source_cache: str = "",
  keep: int = defaults.KEEP,
  chunk_blocks: int = defaults.CHUNK_BLOCKS,
) -> pathlib.Path:
  """Publishes the newest index version of a run with articles changed.

  Args:
    workdir: of a run whose newest index version is of its newest params.
    add: JSONL of articles, or another source of config.data.corpus; an id
      that is there gets the new text.
    delete: ids of articles.
    replace: as add; the corpus is that and nothing else.
    source_cache: of fetched packages.
    keep: versions kept on disk.
    chunk_blocks: blocks embedded and written at a time.

  Returns:
    The new version's directory; "changed" in its manifest says what changed.

  Raises:
    InputError: no change, one that can't be, an index of other params than
      the run's, another builder at work, or a full disk.
  """
  if bool(replace) == bool(add or delete):
    raise InputError(
      "an update takes --config.add=FILE.jsonl and --config.delete=IDS, or"
      " --config.replace=FILE.jsonl alone"
    )
  given = corpora.split_names(f"{add},{replace}")
  source = build_index.open_source(workdir)
  with staging.lock(workdir):
    parent = _parent(source)
    identity = {
      **source.manifest,
      "chunk_blocks": chunk_blocks,
      "parent": int(parent.name),
      "articles": corpora.hashes(given),
      "delete": sorted(delete),
      "replace": bool(replace),
    }
    with staging.Staging(workdir, identity, say=note) as stage:
      if not (stage.path / _KEPT).exists():
        articles = corpora.articles(",".join(given), source_cache)
        _write_blocks(source, stage, articles, delete, bool(replace))
      return _publish(source, stage, parent, keep, chunk_blocks)


def _parent(source: Source) -> pathlib.Path:
  """The newest version, whole and of the run's newest params."""
  newest = versions.latest_version(source.workdir)
  if newest is None:
    raise InputError(
      f"{source.workdir}/index: no version to update: run"
      " experiments.build_index first"
    )
  path = versions.version_path(source.workdir, newest)
  manifests.check(path, manifests.verify(path), source.manifest)
  return path


def _write_blocks(source, stage, articles, delete, replace) -> None:
  try:
    kept = update_blocks.update_block_store(
      stage.version / versions.BLOCKS,
      source.store,
      source.tokenizer,
      articles,
      delete,
      replace,
    ).kept
  except InputError:
    stage.discard()  # there is nothing to go on with
    raise
  with files.atomic_publish(stage.path / _KEPT) as tmp, open(tmp, "wb") as out:
    np.save(out, kept)


def _publish(source, stage, parent, keep, chunk_blocks) -> pathlib.Path:
  store = BlockStore(stage.version / versions.BLOCKS)
  kept = np.load(stage.path / _KEPT, allow_pickle=False)
  stage.open_rows((len(store), source.buckets.size), np.float32, chunk_blocks)
  build_index.embed_chunks(source, store, stage, reuse=Reuse(parent, kept))
  counts: dict[str, Any] = store.meta["changed"]
  manifest = {
    **source.manifest,
    "corpus_hash": store.meta["corpus_hash"],
    "changed": {"parent": int(parent.name), **counts},
  }
  path = build_index.publish(source, stage, manifest, keep)
  said = ", ".join(f"{number} {name}" for name, number in counts.items())
  note(f"articles of version {parent.name}: {said}")
  return path
