"""Index versions on disk: block embeddings, published whole and checked.

A run keeps its index versions under RUN/index/<version>/: the embeddings as a
TensorStore zarr3 array with a crc32c per chunk of rows, and a manifest.json
that tells what made them. A version appears by one rename, so no reader sees
half of one. Beside them lies swaps.jsonl, the journal of which version the
training searched from which step on. Versions are ordered by their number.
"""

import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
import tensorstore

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.types import Array

MANIFEST_KEYS = (
  "params_step",  # training step of the params that embedded the blocks
  "params_hash",  # of the embedder's params
  "tokenizer_hash",
  "corpus_hash",
  "template",  # how a block became an embedder input
  "seconds",  # it took to embed
)
_CHUNK_BYTES = 8 << 20  # small enough to load in parallel, few enough to list


def publish_version(
  run_dir: str | os.PathLike,
  version: int,
  block_emb: Array,
  manifest: dict[str, Any],
) -> pathlib.Path:
  """Writes one index version; it appears complete or not at all.

  A version of the same number is replaced, as a resumed run needs it.

  Args:
    run_dir: the run's directory.
    version: its number, >= 0.
    block_emb: [N, P] NumPy or JAX array. A sharded one is gathered to this
      host first; one that spans several hosts is not supported.
    manifest: the values of MANIFEST_KEYS; version, dtype, shape and a checksum
      of the manifest itself are added.

  Returns:
    The version's directory.

  Raises:
    InputError: no space left on the disk.
  """
  if missing := [k for k in MANIFEST_KEYS if k not in manifest]:
    raise ValueError(f"manifest lacks {', '.join(missing)}")
  block_emb = np.asarray(block_emb)  # [N, P]
  manifest = manifest | {
    "version": int(version),
    "dtype": str(block_emb.dtype),
    "shape": list(block_emb.shape),
  }
  manifest["sha256"] = _manifest_hash(manifest)
  path = _index_dir(run_dir) / str(int(version))
  with files.atomic_publish(path) as tmp:
    tmp.mkdir()
    _write_array(tmp / "block_emb", block_emb)
    files.fail_point("index_manifest")
    text = json.dumps(manifest, indent=2, sort_keys=True)
    (tmp / "manifest.json").write_text(text + "\n")
  return path


def list_versions(run_dir: str | os.PathLike) -> list[int]:
  """Numbers of the published versions, ascending."""
  paths = _index_dir(run_dir).glob("*/manifest.json")
  return sorted(int(p.parent.name) for p in paths if p.parent.name.isdecimal())


def latest_version(run_dir: str | os.PathLike) -> int | None:
  """The highest version number, None where there is no version."""
  return max(list_versions(run_dir), default=None)


def read_version(
  run_dir: str | os.PathLike, version: int, expect: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
  """Reads a version after its manifest was found to be what is expected.

  Args:
    run_dir: the run's directory.
    version: its number.
    expect: manifest keys and the values they must have, such as
      {"tokenizer_hash": …, "shape": (n, p)}.

  Returns:
    Embeddings [N, P] and the manifest.

  Raises:
    InputError: no such version, a manifest that differs from `expect` (the
      message names the key and both values), or damaged files.
  """
  path = _index_dir(run_dir) / str(int(version))
  if not path.is_dir():
    there = ", ".join(map(str, list_versions(run_dir))) or "none"
    raise InputError(f"{path}: no such index version; there are: {there}")
  manifest = files.read_json(path / "manifest.json")
  if manifest.get("sha256") != _manifest_hash(manifest):
    raise InputError(f"{path}/manifest.json is damaged: {_mend(path)}")
  for key, value in expect.items():
    wanted = list(value) if isinstance(value, tuple) else value
    if manifest.get(key) != wanted:
      raise InputError(
        f"{path}/manifest.json: {key} is {manifest.get(key)!r}, but model,"
        f" tokenizer or corpus have {wanted!r}: build the index again with"
        " experiments.build_index"
      )
  block_emb = _read_array(path / "block_emb")
  found = [str(block_emb.dtype), list(block_emb.shape)]
  if found != [manifest["dtype"], manifest["shape"]]:
    raise InputError(f"{path}/block_emb is not what its manifest says: {found}")
  return block_emb, manifest


def version_path(run_dir: str | os.PathLike, version: int) -> pathlib.Path:
  """Where a version is, or would be."""
  return _index_dir(run_dir) / str(int(version))


def matches(
  run_dir: str | os.PathLike, version: int, expect: dict[str, Any]
) -> bool:
  """Whether a version's manifest has all these values."""
  manifest = files.read_json(version_path(run_dir, version) / "manifest.json")
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
    raise InputError(f"refresh.keep={keep}: wanted a whole number >= 1")
  index_dir = _index_dir(run_dir)
  if not (versions := list_versions(run_dir)):
    return []
  doomed = [v for v in versions[:-keep] if v not in pinned]
  for v in doomed:  # renamed first, so that no reader sees half of it
    os.rename(index_dir / str(v), index_dir / f".old-{v}-{os.getpid()}")
  for path in [*index_dir.glob(".old-*-*"), *index_dir.glob(".tmp-*-*")]:
    number = path.name.split("-")[1]
    # A temporary of a later version may be a writer's work under way.
    if number.isdecimal() and int(number) <= versions[-1]:
      shutil.rmtree(path, ignore_errors=True)
  return doomed


def append_swap(run_dir: str | os.PathLike, swap: dict[str, Any]) -> None:
  """Appends a line to the journal, on the disk when this returns.

  Args:
    run_dir: the run's directory.
    swap: what happened; has "step", the first step that uses the new version.
  """
  path = _journal(run_dir)
  if not path.exists():
    with files.atomic_publish(path) as tmp:
      tmp.touch()
  line = json.dumps({"step": int(swap["step"])} | swap) + "\n"
  with open(path, "r+b") as f:
    size = len(b"".join(_whole_lines(f.read())))
    f.truncate(size)  # a line torn by a crash goes
    f.seek(size)
    f.write(line.encode())
    f.flush()
    os.fsync(f.fileno())


def read_swaps(run_dir: str | os.PathLike) -> list[dict[str, Any]]:
  """The journal's lines; a last line torn by a crash is not there."""
  path = _journal(run_dir)
  content = path.read_bytes() if path.exists() else b""
  swaps = []
  for number, line in enumerate(_whole_lines(content), 1):
    try:
      swaps.append(json.loads(line))
    except ValueError as e:
      raise InputError(f"{path}:{number} is damaged, not JSON ({e})") from e
  return swaps


def truncate_swaps(run_dir: str | os.PathLike, after_step: int) -> None:
  """Drops swaps of steps > after_step, as a resume at that step must."""
  swaps = read_swaps(run_dir)
  kept = [s for s in swaps if s["step"] <= after_step]
  if kept != swaps:
    with files.atomic_publish(_journal(run_dir)) as tmp:
      tmp.write_text("".join(json.dumps(s) + "\n" for s in kept))


def start_over(run_dir: str | os.PathLike) -> None:
  """Deletes all versions and the journal, of a run that begins anew."""
  if (path := _index_dir(run_dir)).exists():
    shutil.rmtree(path)


def params_hash(tree: Any) -> str:
  """Hex sha256 of a tree's paths, dtypes, shapes and values."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    values = np.asarray(leaf)
    name = f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}\n"
    digest.update(name.encode())
    digest.update(values.tobytes())
  return digest.hexdigest()


def _write_array(path: pathlib.Path, array: np.ndarray) -> None:
  num_rows, num_columns = array.shape
  rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
  chunk_shape = [max(1, min(rows, num_rows)), max(1, num_columns)]
  spec = _spec(path) | {
    "metadata": {
      "shape": list(array.shape),
      "data_type": str(array.dtype),
      "chunk_grid": {
        "name": "regular",
        "configuration": {"chunk_shape": chunk_shape},
      },
      "codecs": [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "crc32c"},
      ],
    },
    # Every chunk is there, so a lost one cannot be read as zeros.
    "store_data_equal_to_fill_value": True,
  }
  try:
    store = tensorstore.open(spec, create=True, write=True).result()
    store.write(array).result()
  except ValueError as e:
    if os.strerror(errno.ENOSPC) in str(e):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from e
    raise


def _read_array(path: pathlib.Path) -> np.ndarray:
  spec = _spec(path) | {"fill_missing_data_reads": False}
  try:
    return tensorstore.open(spec, open=True, read=True).result().read().result()
  except ValueError as e:
    reason = " ".join(str(e).split())
    raise InputError(
      f"{path} is damaged: {_mend(path.parent)} ({reason})"
    ) from e


def _spec(path: pathlib.Path) -> dict[str, Any]:
  kvstore = {"driver": "file", "path": str(path.absolute())}
  return {"driver": "zarr3", "kvstore": kvstore}


def _mend(path: pathlib.Path) -> str:
  return f"delete {path} and run again, or use another version"


def _manifest_hash(manifest: dict[str, Any]) -> str:
  rest = {k: v for k, v in manifest.items() if k != "sha256"}
  return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _whole_lines(content: bytes) -> list[bytes]:
  return [x for x in content.splitlines(keepends=True) if x.endswith(b"\n")]


def _index_dir(run_dir: str | os.PathLike) -> pathlib.Path:
  return pathlib.Path(run_dir) / "index"


def _journal(run_dir: str | os.PathLike) -> pathlib.Path:
  return _index_dir(run_dir) / "swaps.jsonl"
