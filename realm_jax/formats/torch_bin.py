"""Torch's checkpoints, pytorch_model.bin, without torch and without unpickling.

The file is a zip archive: a pickle that says which tensor lies where, and the
raw bytes of each storage. Files of torch < 1.6 hold the same one after
another. Tensors that share a storage share it here too.
"""

import math
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from realm_jax.config import InputError
from realm_jax.formats import arrays, shards, torch_zip
from realm_jax.formats.plain_pickle import Global, read_pickle

_LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # its magic, pickled
_MAX_DIMS = 32  # NumPy 1
_MAX_SHARING = 16  # times the bytes of the file; tied weights take 3
_STORAGES = {
  f"torch.{name}Storage": np.dtype(dtype)
  for name, dtype in {
    "Double": "f8",
    "Float": "f4",
    "Half": "f2",
    "BFloat16": arrays.BFLOAT16,
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
  }.items()
}


class _Storage(NamedTuple):
  key: str
  dtype: np.dtype
  size: int  # elements


class _Tensor(NamedTuple):
  storage: _Storage
  offset: int  # elements, as the strides
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def read_tensors(
  path: str | os.PathLike, *, upcast: bool = False
) -> dict[str, np.ndarray]:
  """Name -> read-only array, mapped from the file.

  Args:
    path: pytorch_model.bin, or the pytorch_model.bin.index.json of shards.
    upcast: make float32 of float16 and bfloat16 instead of keeping them.

  Raises:
    InputError: a file that is missing or broken, or that wants more than a
      dict of names to tensors needs; nothing in it is run.
  """
  path = pathlib.Path(path)
  if path.name.endswith(shards.SUFFIX):
    tensors = shards.read_shards(path, _read_file)
  else:
    tensors = _read_file(path)
  return arrays.upcast(tensors) if upcast else tensors


def _read_file(path: pathlib.Path) -> dict[str, np.ndarray]:
  data = arrays.map_file(path)
  if data[: len(_LEGACY)].tobytes() == _LEGACY:
    return _read_legacy(path, data)
  archive = torch_zip.Archive(path, data)
  pickled = archive.member("data.pkl")
  place = f"{path}: data.pkl"
  value, end = _read(pickled, place)
  if end != len(pickled):
    raise InputError(f"{place}: {len(pickled) - end} bytes too many")
  swapped = archive.byteorder() != sys.byteorder
  return _tensors(
    path, value, swapped, lambda storage: archive.member(f"data/{storage.key}")
  )


def _read_legacy(path: pathlib.Path, data: np.ndarray) -> dict[str, np.ndarray]:
  """Five pickles (magic, version, system, tensors, keys), then the storages,
  each with its number of elements before it, in the order of the keys."""
  value, position = [], 0
  for _ in range(5):
    one, position = _read(data, str(path), position)
    value.append(one)
  _, _, system, root, keys = value
  if not isinstance(system, dict) or not isinstance(keys, list):
    raise InputError(f"{path}: not a checkpoint of torch: get the file again")
  dtypes = {t.storage.key: t.storage.dtype for t in _named(path, root).values()}
  places: dict[str, np.ndarray] = {}
  for key in keys:
    if type(key) is not str or key not in dtypes or key in places:
      raise InputError(f"{path}: a storage of no tensor: get the file again")
    head = data[position : position + 8].tobytes()
    position += 8
    size = int.from_bytes(head, "little") * dtypes[key].itemsize
    places[key] = data[position : position + size]
    position += size
  if position != len(data) or places.keys() != dtypes.keys():
    raise InputError(
      f"{path}: {len(data)} bytes with {len(places)} storages, wanted {position}"
      f" with {len(dtypes)}: get the file again"
    )
  little = system.get("little_endian", True) is True
  swapped = little != (sys.byteorder == "little")
  return _tensors(path, root, swapped, lambda storage: places[storage.key])


def _read(data: np.ndarray, place: str, start: int = 0) -> tuple[Any, int]:
  reader = _Reader(place)
  names = _STORAGES | {
    "collections.OrderedDict": reader.ordered_dict,
    "torch._utils._rebuild_tensor_v2": reader.tensor,
    "torch._utils._rebuild_parameter": reader.parameter,
  }
  return read_pickle(
    memoryview(data),
    place,
    names,
    start=start,
    persistent=reader.storage,
    build=reader.set_state,
  )


class _Reader:
  """What the names in a checkpoint's pickle stand for."""

  def __init__(self, place: str):
    self._place = place
    self._storages: dict[str, _Storage] = {}

  def _error(self, what: str) -> InputError:
    return InputError(
      f"{self._place}: {what} that torch would not write: get the file again"
    )

  def storage(self, persistent_id: Any) -> _Storage:
    match persistent_id if type(persistent_id) is tuple else None:
      case (
        "storage",
        Global(value=np.dtype() as dtype),
        str(key),
        str(),
        int(size),
        *views,
      ) if _are_sizes((size,)) and views in ([], [None]):
        storage = _Storage(key, dtype, size)
        if self._storages.setdefault(key, storage) == storage:
          return storage
    raise self._error("a storage")

  def tensor(self, args: tuple) -> _Tensor:
    if len(args) in (6, 7):
      storage, offset, shape, strides = args[:4]
      tensor = _Tensor(storage, offset, shape, strides)
      if (
        isinstance(storage, _Storage)
        and _are_sizes((offset,))
        and _are_sizes(shape)
        and _are_sizes(strides)
        and len(shape) == len(strides) <= _MAX_DIMS
        and _fits(tensor)
      ):
        return tensor
    raise self._error("a tensor beyond its storage")

  def parameter(self, args: tuple) -> _Tensor:
    if len(args) == 3 and isinstance(args[0], _Tensor):
      return args[0]
    raise self._error("a parameter")

  def ordered_dict(self, args: tuple) -> dict:
    if args:
      raise self._error("a dict")
    return {}

  def set_state(self, value: Any, state: Any) -> None:
    """A module's state_dict carries versions of its layers; left out."""
    if not isinstance(value, dict) or not isinstance(state, dict):
      raise self._error(f"the state of a {type(value).__name__}")


def _are_sizes(values: Any) -> bool:
  return type(values) is tuple and all(
    type(x) is int and x >= 0 for x in values
  )


def _fits(tensor: _Tensor) -> bool:
  """Whether the tensor lies in its storage and is no larger than that."""
  if 0 in tensor.shape:
    return True
  ends = (
    (n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True)
  )
  last = tensor.offset + sum(ends)
  size = tensor.storage.size
  return last < size and math.prod(tensor.shape) <= size


def _named(path: pathlib.Path, value: Any) -> dict[str, _Tensor]:
  """The value of the pickle, if it is names and tensors."""
  if not isinstance(value, dict):
    raise InputError(f"{path}: wanted a dict of names to tensors")
  for name, tensor in value.items():
    if not isinstance(name, str) or not isinstance(tensor, _Tensor):
      raise InputError(
        f"{path}: {str(name)[:80]!r} is a {type(tensor).__name__}, not a tensor:"
        " save the model's state_dict() alone"
      )
  return value


def _tensors(
  path: pathlib.Path,
  value: Any,
  swapped: bool,
  bytes_of: Callable[[_Storage], np.ndarray],
) -> dict[str, np.ndarray]:
  """The arrays of the tensors, views of their storages."""
  named = _named(path, value)
  storages: dict[str, np.ndarray] = {}
  tensors = {}
  num_bytes = 0
  for name, tensor in named.items():
    place = f"{path}: {name[:80]!r}"
    storage = tensor.storage
    if storage.key not in storages:
      data = bytes_of(storage)
      arrays.as_array(data, storage.dtype, (storage.size,), place)
      storages[storage.key] = _reversed(data, storage) if swapped else data
    num_bytes += math.prod(tensor.shape) * storage.dtype.itemsize
    if num_bytes > _MAX_SHARING * path.stat().st_size:
      raise InputError(
        f"{place}: the tensors so far are over {_MAX_SHARING} times as large as"
        " the file, so much do they share: get the file again"
      )
    tensors[name] = _view(storages[storage.key], tensor, place)
  return tensors


def _reversed(data: np.ndarray, storage: _Storage) -> np.ndarray:
  """The bytes of each element in the other order (a copy)."""
  elements = data.reshape(-1, storage.dtype.itemsize)
  return np.frombuffer(elements[:, ::-1].tobytes(), np.uint8)


def _view(data: np.ndarray, tensor: _Tensor, place: str) -> np.ndarray:
  """The tensor in the bytes of its storage."""
  dtype, shape = tensor.storage.dtype, tensor.shape
  if 0 in shape:
    return arrays.as_array(data[:0], dtype, shape, place)
  strides = [
    s * dtype.itemsize if n > 1 else 0
    for n, s in zip(shape, tensor.strides, strict=True)
  ]
  return np.ndarray(shape, dtype, data, tensor.offset * dtype.itemsize, strides)
