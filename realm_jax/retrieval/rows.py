"""The rows of an index on disk: a zarr3 array, a crc32c for each chunk.

A chunk is a file of its own, on the disk when its write returns, so chunks can
be written by different processes, in any order, and be written again.
"""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorstore

from realm_jax.config import InputError
from realm_jax.retrieval import manifest


def create(
  path: pathlib.Path, shape: tuple[int, int], dtype: Any, chunk_rows: int
) -> tensorstore.TensorStore:
  """Opens an array [N, P] for writing; makes it if it is not there.

  Args:
    path: the directory.
    shape: (N, P).
    dtype: of NumPy, or bfloat16.
    chunk_rows: rows of a chunk; write whole chunks.

  Raises:
    OSError: no space left.
  """
  spec = _spec(path) | {
    "metadata": {
      "shape": list(shape),
      "data_type": str(np.dtype(dtype)),
      "chunk_grid": {
        "name": "regular",
        "configuration": {"chunk_shape": [chunk_rows, max(1, shape[1])]},
      },
      "codecs": [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "crc32c"},
      ],
    },
    # Every chunk is there, so a lost one cannot be read as zeros.
    "store_data_equal_to_fill_value": True,
  }
  with _disk_full(path):
    return tensorstore.open(spec, create=True, open=True, write=True).result()


def write(
  path: pathlib.Path,
  store: tensorstore.TensorStore,
  first: int,
  values: np.ndarray,
) -> None:
  """Writes rows first, first + 1, ... [n, P]; path is for messages.

  Raises:
    OSError: no space left.
  """
  with _disk_full(path):
    store[first : first + len(values)].write(values).result()


def read(path: pathlib.Path, first: int = 0, last: int | None = None):
  """Reads the rows first .. last - 1, all of them by default -> [n, P].

  Raises:
    InputError: damaged files.
  """
  store = _open(path)
  last = store.shape[0] if last is None else last
  with _damage_named(path):
    return store[first:last].read().result()


def chunks_of(path: pathlib.Path, first: int, last: int) -> set[str]:
  """Names of the chunks that rows first .. last - 1 are in.

  Raises:
    InputError: damaged files.
  """
  size = _open(path).chunk_layout.read_chunk.shape[0]
  return {chunk_name(i) for i in range(first // size, -(-last // size))}


def chunk_name(number: int) -> str:
  """The file of a chunk, under the array's directory."""
  return f"c/{number}/0"


def _open(path: pathlib.Path) -> tensorstore.TensorStore:
  spec = _spec(path) | {"fill_missing_data_reads": False}
  with _damage_named(path):
    return tensorstore.open(spec, open=True, read=True).result()


@contextlib.contextmanager
def _damage_named(path: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except ValueError as e:
    reason = " ".join(str(e).split())
    mend = manifest.mend(path.parent)
    raise InputError(f"{path} is damaged: {mend} ({reason})") from e


@contextlib.contextmanager
def _disk_full(path: pathlib.Path) -> Iterator[None]:
  """TensorStore tells of a full disk in words only."""
  try:
    yield
  except ValueError as e:
    if os.strerror(errno.ENOSPC) in str(e):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from e
    raise


def _spec(path: pathlib.Path) -> dict[str, Any]:
  kvstore = {"driver": "file", "path": str(path.absolute())}
  return {"driver": "zarr3", "kvstore": kvstore}
