"""Mapped files and the arrays in them.

A file is mapped, not read: its arrays are read-only views, so that a tensor of
several gigabytes costs no memory before somebody uses it.
"""

import math
import os
import pathlib
from collections.abc import Sequence

import ml_dtypes
import numpy as np

from realm_jax.config import InputError

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_HALVES = (np.dtype(np.float16), BFLOAT16)


def map_file(path: str | os.PathLike) -> np.ndarray:
  """The bytes of a file, [size] uint8, mapped read-only.

  Raises:
    InputError: it is not there or cannot be read.
  """
  try:
    if pathlib.Path(path).stat().st_size == 0:
      return np.frombuffer(b"", np.uint8)  # nothing to map
    return np.asarray(np.memmap(path, np.uint8, "r"))
  except FileNotFoundError as e:
    raise InputError(f"{path}: no such file") from e
  except OSError as e:
    raise InputError(f"{path}: cannot be read ({e.strerror})") from e


def as_array(
  data: np.ndarray, dtype: np.dtype, shape: Sequence[int], place: str
) -> np.ndarray:
  """A view of little-endian bytes as an array.

  Args:
    data: [size] uint8.
    dtype: what they are.
    shape: whole numbers >= 0.
    place: where the bytes are, for messages.

  Raises:
    InputError: another number of bytes, or a bool that is neither 0 nor 1.
  """
  wanted = math.prod(shape) * dtype.itemsize
  if len(data) != wanted:
    raise InputError(
      f"{place}: {dtype} of shape {brief_shape(shape)} takes {wanted} bytes,"
      f" but the file has {len(data)}: get the file again"
    )
  if dtype == np.bool_ and np.any(data > 1):
    raise InputError(
      f"{place}: a bool that is neither 0 nor 1: get the file again"
    )
  try:
    return data.view(dtype).reshape(shape)
  except (ValueError, OverflowError) as e:  # empty, but as [0, 2**63]
    raise InputError(
      f"{place}: shape {brief_shape(shape)} is none of an array ({e})"
    ) from e


def upcast(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The tensors with float16 and bfloat16 as float32 (a copy of those)."""
  return {
    name: x.astype(np.float32) if x.dtype in _HALVES else x
    for name, x in tensors.items()
  }


def brief_shape(shape: Sequence[int]) -> str:
  """A shape in words of bounded length."""
  text = str(list(shape[:9]))
  return text if len(text) <= 60 else text[:59] + "…"
