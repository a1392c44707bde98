"""Which index version a run is asked with, and whether it may be.

A version fits a run if the same tokenizer made it and if the run searches such
params: those of its checkpoint, or those of one of its own versions (training
searches an index that is older than the params, and a fine-tuned retriever one
that stays).
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from realm_jax.config import InputError
from realm_jax.data.blocks import BlockStore
from realm_jax.retrieval import index, manifest


def find_version(
  workdir: pathlib.Path, named: str, sub_runs: Sequence[str]
) -> pathlib.Path | None:
  """The directory of a version.

  Args:
    workdir: the run's directory.
    named: "" for the run's newest version, None where it has none; the number
      of one of its versions; a version's directory; another run's directory,
      or that of a folder with sub_runs, for its newest version.
    sub_runs: names of runs in a folder, the most able first.

  Raises:
    InputError: there is no such version.
  """
  if not named:
    newest = index.latest_version(workdir)
    return None if newest is None else index.version_path(workdir, newest)
  if named.isdecimal():
    return index.find_version(workdir, int(named))
  path = pathlib.Path(named)
  if (path / manifest.FILE).is_file():
    return path
  for run in (path, *(path / name for name in sub_runs)):
    newest = index.latest_version(run)
    if newest is not None:
      return index.version_path(run, newest)
  raise InputError(
    f"--config.index={named}: no index version: wanted the number of one of"
    f" {workdir}, the directory of one (with {manifest.FILE}), or a run's"
  )


def check_version(
  path: pathlib.Path,
  workdir: pathlib.Path,
  *,
  params: Any,
  step: int,
  tokenizer_hash: str,
  block_len: int,
) -> None:
  """Refuses a version that is not of the run's model and tokenizer.

  Args:
    path: the version.
    workdir: the run's directory.
    params: of the run's embedder, of training step `step`.
    step: see params.
    tokenizer_hash: the run's.
    block_len: C.

  Raises:
    InputError: names what differs, or says that the manifest is damaged.
  """
  made = manifest.read(path)
  manifest.check(path, made, {"tokenizer_hash": tokenizer_hash})
  own = path.parent.absolute() == index.index_dir(workdir).absolute()
  if own and made["params_step"] != step:
    return  # an older index of this very run
  fit = {index.params_hash(params)}
  if not own:
    manifest.check(path, made, {"template": manifest.template(block_len)})
    fit |= _searched(workdir)
  if made["params_hash"] not in fit:
    raise InputError(
      f"{path / manifest.FILE}: params_hash is {made['params_hash'][:12]!r}, but"
      f" {workdir} (step {step}) has {', '.join(sorted(h[:12] for h in fit))}:"
      " another model made it: embed that corpus with this run's, by"
      " experiments.build_index or update_corpus"
    )


def open_blocks(
  path: pathlib.Path | None, stores: Mapping[str, BlockStore]
) -> BlockStore:
  """The store that a version's rows belong to.

  Args:
    path: the version; None for none.
    stores: what there is where the version has none of its own, by directory;
      the first is the run's.

  Raises:
    InputError: none of them is the corpus that the version names.
  """
  if path is None:
    return next(iter(stores.values()))
  if blocks := index.own_blocks(path):
    stores = {str(blocks): BlockStore(blocks)}
  made = manifest.read(path)
  for store in stores.values():
    if store.meta["corpus_hash"] == made["corpus_hash"]:
      return store
  have = ", ".join(
    f"{k} {s.meta['corpus_hash'][:12]}" for k, s in stores.items()
  )
  raise InputError(
    f"{path / manifest.FILE}: corpus_hash is {made['corpus_hash'][:12]!r}, but"
    f" there is {have}: build the index again with experiments.build_index"
  )


def read_rows(path: pathlib.Path, store: BlockStore, size: int) -> np.ndarray:
  """The rows [N, size] of a version, all its files checked.

  Raises:
    InputError: damaged or missing files, or another shape.
  """
  expect = {
    "corpus_hash": store.meta["corpus_hash"],
    "shape": (len(store), size),
  }
  return index.read_path(path, expect)[0]


def _searched(workdir: pathlib.Path) -> set[str]:
  """The params of the versions that a run has."""
  return {
    index.read_manifest(workdir, version)["params_hash"]
    for version in index.list_versions(workdir)
  }
