"""Index versions on disk: block embeddings, published whole and checked.

A run keeps its index versions under RUN/index/<version>/: the embeddings as a
TensorStore zarr3 array, a manifest.json that tells what made them and what each
file's digest is, and, where its corpus is not the run's own, the block store
that its rows belong to. A version appears by one rename, so no reader sees half
of one. Versions are ordered by their number.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from realm_jax import distributed, files
from realm_jax.config import InputError
from realm_jax.retrieval import manifest as manifests
from realm_jax.retrieval import rows, vectors
from realm_jax.types import Array

ROWS = "block_emb"  # the array in a version's directory
BLOCKS = "blocks"  # the block store in it, if it has one of its own
_RUN = "run.json"  # beside the versions: the run's id
_CHUNK_BYTES = 8 << 20  # small enough to load in parallel, few enough to list


def publish_version(
  run_dir: str | os.PathLike,
  version: int,
  block_emb: Array,
  manifest: dict[str, Any],
  replace: bool = True,
  num_rows: int | None = None,
) -> pathlib.Path:
  """Writes one index version; it appears complete or not at all.

  Args:
    run_dir: the run's directory.
    version: its number, >= 0.
    block_emb: [N, P] NumPy or JAX array. If its rows are sharded, each process
      writes those it has, a shard at a time, and all have to call this.
    manifest: the values of manifest.KEYS, but for version, dtype and shape.
    replace: whether it takes the place of a version of the same number, as a
      resumed run needs it.
    num_rows: how many rows, from the first on, are the index; None for all.

  Returns:
    The version's directory.

  Raises:
    InputError: no space left on the disk.
    FileExistsError: the number is taken.
  """
  path = version_path(run_dir, version)
  n = block_emb.shape[0] if num_rows is None else num_rows
  shape = (n, block_emb.shape[1])
  if jax.process_index():
    tmp = pathlib.Path(distributed.by_process_0(str))
    _write_rows(tmp / ROWS, block_emb, shape)
    return path
  with files.atomic_publish(path, replace) as tmp:
    tmp.mkdir()
    distributed.by_process_0(lambda: str(tmp))
    _write_rows(tmp / ROWS, block_emb, shape)
    files.fail_point("index_manifest")
    manifests.write(
      tmp,
      manifest
      | {
        "version": int(version),
        "dtype": str(block_emb.dtype),
        "shape": list(shape),
      },
    )
  return path


def publish_next(
  run_dir: str | os.PathLike,
  block_emb: Array,
  manifest: dict[str, Any],
  num_rows: int | None = None,
) -> int:
  """As publish_version, under the next free number, which is returned.

  Of several publishers each gets a number of its own.
  """
  while True:
    version = distributed.by_process_0(lambda: next_version(run_dir))
    taken = False
    try:
      publish_version(run_dir, version, block_emb, manifest, False, num_rows)
    except FileExistsError:
      taken = True
    if not distributed.by_process_0(lambda taken=taken: taken):
      return version


def _write_rows(path, block_emb, shape) -> None:
  """Writes the rows that are here; returns when all processes have.

  Each shard has chunks of its own, so no two processes write to one file.
  """
  n, size = shape
  parts, rows_of_part = _parts(block_emb)
  most = _CHUNK_BYTES // max(1, size * block_emb.dtype.itemsize)
  chunk_rows = max(1, min(most, n))
  if rows_of_part < n:
    chunk_rows = _largest_divisor(rows_of_part, most)
  store = rows.create(path, shape, block_emb.dtype, chunk_rows)
  for first, part in parts:
    if first < n:
      rows.write(path, store, first, np.asarray(part)[: n - first])
  distributed.wait_for_all()


def _parts(block_emb) -> tuple[list[tuple[int, Array]], int]:
  """(first row, rows) of the shards that this process has to write, and how
  many rows a shard has."""
  if not isinstance(block_emb, jax.Array):
    return [(0, block_emb)], len(block_emb)
  parts = [
    (shard.index[0].start or 0, shard.data)
    for shard in block_emb.addressable_shards
    if shard.replica_id == 0
  ]
  return parts, block_emb.sharding.shard_shape(block_emb.shape)[0]


def _largest_divisor(number: int, most: int) -> int:
  return next(d for d in range(min(most, number), 0, -1) if number % d == 0)


def list_versions(run_dir: str | os.PathLike) -> list[int]:
  """Numbers of the published versions, ascending."""
  paths = index_dir(run_dir).glob(f"*/{manifests.FILE}")
  return sorted(int(p.parent.name) for p in paths if p.parent.name.isdecimal())


def latest_version(run_dir: str | os.PathLike) -> int | None:
  """The highest version number, None where there is no version."""
  return max(list_versions(run_dir), default=None)


def next_version(run_dir: str | os.PathLike) -> int:
  """A number above every directory's, damaged ones among them."""
  names = (path.name for path in index_dir(run_dir).glob("*"))
  return 1 + max((int(n) for n in names if n.isdecimal()), default=-1)


def read_version(
  run_dir: str | os.PathLike,
  version: int,
  expect: dict[str, Any],
  first: int = 0,
  last: int | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
  """Reads a version after its manifest was found to be what is expected.

  Args:
    run_dir: the run's directory.
    version: its number.
    expect: manifest keys and the values they must have, such as
      {"tokenizer_hash": …, "shape": (n, p)}.
    first, last: reads and verifies rows first .. last - 1 only; all of them by
      default.

  Returns:
    Embeddings [last - first, P] and the manifest.

  Raises:
    InputError: no such version, a manifest that differs from `expect` (the
      message names the key and both values), damaged files, or rows that are
      not finite.
  """
  return read_path(find_version(run_dir, version), expect, first, last)


def find_version(run_dir: str | os.PathLike, version: int) -> pathlib.Path:
  """The directory of a published version.

  Raises:
    InputError: there is no such version.
  """
  path = version_path(run_dir, version)
  if not path.is_dir():
    there = ", ".join(map(str, list_versions(run_dir))) or "none"
    raise InputError(f"{path}: no such index version; there are: {there}")
  return path


def read_path(
  path: pathlib.Path,
  expect: dict[str, Any],
  first: int = 0,
  last: int | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
  """read_version, of a version's own directory, wherever it is."""
  manifest = manifests.read(path)
  manifests.check(path, manifest, expect)
  num_rows, size = manifest["shape"]
  last = num_rows if last is None else last
  whole = (first, last) == (0, num_rows)
  others = () if whole else _other_chunks(path, first, last)
  manifests.verify(path, left_out=others)
  block_emb = rows.read(path / ROWS, first, last)
  found = [str(block_emb.dtype), list(block_emb.shape)]
  if found != [manifest["dtype"], [last - first, size]]:
    raise InputError(f"{path}/{ROWS} is not what its manifest says: {found}")
  vectors.check_finite(f"{path}/{ROWS}", block_emb)
  return block_emb, manifest


def _other_chunks(path: pathlib.Path, first: int, last: int) -> set[str]:
  """Files of a version that no row from first to last - 1 is in."""
  there = {p.relative_to(path).as_posix() for p in (path / ROWS).glob("c/*/*")}
  mine = rows.chunks_of(path / ROWS, first, last)
  return there - {f"{ROWS}/{name}" for name in mine}


def read_manifest(run_dir: str | os.PathLike, version: int) -> dict[str, Any]:
  """A version's manifest.

  Raises:
    InputError: there is none, or it is damaged.
  """
  return manifests.read(version_path(run_dir, version))


def newest_blocks(run_dir: str | os.PathLike) -> pathlib.Path | None:
  """own_blocks of the newest version."""
  newest = latest_version(run_dir)
  return None if newest is None else own_blocks(version_path(run_dir, newest))


def own_blocks(path: pathlib.Path) -> pathlib.Path | None:
  """The block store in a version's directory, None: the run's data has it."""
  return path / BLOCKS if (path / BLOCKS).is_dir() else None


def version_path(run_dir: str | os.PathLike, version: int) -> pathlib.Path:
  """Where a version is, or would be."""
  return index_dir(run_dir) / str(int(version))


def matches(
  run_dir: str | os.PathLike, version: int, expect: dict[str, Any]
) -> bool:
  """Whether a version's manifest has all these values.

  Raises:
    InputError: the manifest is damaged.
  """
  manifest = read_manifest(run_dir, version)
  return all(manifest.get(key) == value for key, value in expect.items())


def retain(
  run_dir: str | os.PathLike, keep: int, pinned: Collection[int] = ()
) -> list[int]:
  """Deletes old versions and what killed writers left; returns the deleted.

  The newest `keep` versions and the `pinned` ones (those that checkpoints
  name) stay.

  Raises:
    InputError: keep < 1.
  """
  if keep < 1:
    raise InputError(f"keep={keep}: wanted a whole number >= 1")
  folder = index_dir(run_dir)
  if not (versions := list_versions(run_dir)):
    return []
  doomed = [v for v in versions[:-keep] if v not in pinned]
  for v in doomed:  # renamed first, so that no reader sees half of it
    os.rename(folder / str(v), folder / f".old-{v}-{os.getpid()}")
  for path in folder.glob(".old-*-*"):
    shutil.rmtree(path, ignore_errors=True)
  for path in folder.glob(".tmp-*-*"):
    number = path.name.split("-")[1]
    # A temporary of a later version may be a writer's work under way.
    if number.isdecimal() and int(number) <= versions[-1]:
      shutil.rmtree(path, ignore_errors=True)
  return doomed


def start_over(run_dir: str | os.PathLike) -> None:
  """Deletes all versions and the journal, of a run that begins anew.

  The run gets a new id.
  """
  if (path := index_dir(run_dir)).exists():
    shutil.rmtree(path)
  files.write_json(path / _RUN, {"id": uuid.uuid4().hex})


def run_id(run_dir: str | os.PathLike) -> str | None:
  """What tells this run's versions from another's; None: it never trained one."""
  path = index_dir(run_dir) / _RUN
  return files.read_json(path)["id"] if path.exists() else None


def newest_of(
  run_dir: str | os.PathLike, expect: dict[str, Any]
) -> tuple[int, dict[str, Any]] | None:
  """The newest version whose manifest has these values, and the manifest."""
  for version in reversed(list_versions(run_dir)):
    with contextlib.suppress(InputError):  # damaged, or deleted meanwhile
      manifest = read_manifest(run_dir, version)
      manifests.check(version_path(run_dir, version), manifest, expect)
      return version, manifest
  return None


def params_hash(tree: Any) -> str:
  """Hex sha256 of a tree's paths, dtypes, shapes and values."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    values = np.asarray(leaf)
    name = f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}\n"
    digest.update(name.encode())
    digest.update(values.tobytes())
  return digest.hexdigest()


def index_dir(run_dir: str | os.PathLike) -> pathlib.Path:
  """The directory that a run's versions are in."""
  return pathlib.Path(run_dir) / "index"
