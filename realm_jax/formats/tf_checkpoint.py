"""TensorFlow's checkpoints without TensorFlow: the original's model.ckpt-N and
the variables of its hub modules and SavedModels.

PREFIX.index is a table (tf_table.py) from a variable's name to its entry:
dtype, shape, and where its bytes lie in PREFIX.data-00000-of-0000N. Messages:
tensorflow/core/protobuf/tensor_bundle.proto.
"""

import difflib
import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from realm_jax.config import InputError
from realm_jax.formats import arrays, protobuf, tf_table, tfrecord

_DTYPES = {  # tensorflow/core/framework/types.proto
  1: np.dtype("<f4"),
  2: np.dtype("<f8"),
  3: np.dtype("<i4"),
  4: np.dtype("u1"),
  5: np.dtype("<i2"),
  6: np.dtype("i1"),
  9: np.dtype("<i8"),
  10: np.dtype("?"),
  14: arrays.BFLOAT16,
  17: np.dtype("<u2"),
  19: np.dtype("<f2"),
  22: np.dtype("<u4"),
  23: np.dtype("<u8"),
}
_STRING = 7
_SAVED_MODEL = pathlib.Path("variables", "variables")
_SLICE = b"\0"  # begins the key of a part of a variable


class Variable(NamedTuple):
  """What a checkpoint's index says of a variable.

  Attributes:
    dtype: as in types.proto.
    shape: its sizes.
    shard: which data file has it.
    offset: where it begins there, in bytes.
    size: bytes.
    checksum: masked crc32c of these.
    is_sliced: whether it is stored in parts, which we do not read.
  """

  dtype: int
  shape: tuple[int, ...]
  shard: int
  offset: int
  size: int
  checksum: int
  is_sliced: bool


def list_variables(path: str | os.PathLike) -> dict[str, Variable]:
  """The variables of a checkpoint by name; see read_variables for `path`."""
  return _read_index(_prefix(path))[0]


def read_variables(
  path: str | os.PathLike, names: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
  """Name -> read-only array, mapped from the checkpoint's data.

  Args:
    path: the prefix of a checkpoint (DIR/model.ckpt-300000); a directory with
      one checkpoint; a hub module or SavedModel.
    names: which variables; None for all but strings (such as the object graph
      of TF2's checkpoints).

  Raises:
    InputError: no checkpoint there, an unknown name, a variable that is a
      string or stored in parts, bytes that are missing or differ from their
      checksum.
  """
  prefix = _prefix(path)
  variables, num_shards = _read_index(prefix)
  if names is None:
    names = [n for n, v in variables.items() if v.dtype != _STRING]
  tensors = {}
  shards: dict[int, np.ndarray] = {}
  used: dict[int, int] = {}  # bytes of each
  for name in dict.fromkeys(names):
    if name not in variables:
      close = difflib.get_close_matches(name, variables, 3, 0)
      raise InputError(f"{prefix}: no variable {name!r}; it has {close}")
    variable = variables[name]
    shard = variable.shard
    if shard not in shards:
      file = f"{prefix.name}.data-{shard:05}-of-{num_shards:05}"
      shards[shard] = arrays.map_file(prefix.with_name(file))
    place = f"{prefix}: {name[:80]!r}"
    used[shard] = used.get(shard, 0) + variable.size
    if used[shard] > len(shards[shard]):
      raise InputError(f"{place} is not all in the data: get all files again")
    tensors[name] = _read_variable(shards[shard], variable, place)
  return tensors


def _prefix(path: str | os.PathLike) -> pathlib.Path:
  path = pathlib.Path(path)
  for prefix in (path, path / _SAVED_MODEL):
    if prefix.with_name(prefix.name + ".index").is_file():
      return prefix
  found = sorted(path.glob("*.index")) if path.is_dir() else []
  if len(found) == 1:
    return found[0].with_suffix("")
  if found:
    raise InputError(
      f"{path}: has {len(found)} checkpoints; name one, such as"
      f" {found[-1].with_suffix('')}"
    )
  raise InputError(
    f"{path}: no TensorFlow checkpoint (PREFIX.index and PREFIX.data-*), hub"
    " module or SavedModel"
  )


def _read_index(prefix: pathlib.Path) -> tuple[dict[str, Variable], int]:
  """The variables and the number of data files."""
  file = prefix.with_name(prefix.name + ".index")
  table = tf_table.read_table(arrays.map_file(file).tobytes(), str(file))
  key, value = next(table, (None, b""))
  if key != b"":
    raise InputError(f"{file}: lacks the header of a checkpoint: get it again")
  header = protobuf.parse_message(value, str(file))
  num_shards, big_endian = (
    protobuf.integer(header, i, str(file)) for i in (1, 2)
  )
  if big_endian:
    raise InputError(f"{file}: written on a big-endian machine; save it anew")
  variables = {}
  for key, value in table:
    if not key.startswith(_SLICE):
      place = f"{file}: {key[:80]!r}"
      variables[key.decode("utf-8", "backslashreplace")] = _parse_entry(
        value, place
      )
  return variables, num_shards


def _parse_entry(value: bytes, place: str) -> Variable:
  entry = protobuf.parse_message(value, place)
  shape = protobuf.parse_message(protobuf.joined(entry, 2, place), place)
  sizes = [
    protobuf.integer(protobuf.parse_message(dim, place), 1, place)
    for dim in protobuf.texts(shape, 2, place)
  ]
  dtype, shard, offset, size, checksum = (
    protobuf.integer(entry, i, place) for i in (1, 3, 4, 5, 6)
  )
  return Variable(
    dtype, tuple(sizes), shard, offset, size, checksum, bool(entry.get(7))
  )


def _read_variable(
  data: np.ndarray, variable: Variable, place: str
) -> np.ndarray:
  if variable.dtype not in _DTYPES or variable.is_sliced:
    what = "stored in parts" if variable.is_sliced else "of no numeric dtype"
    raise InputError(
      f"{place} is {what} (dtype {variable.dtype} of types.proto): leave it out"
    )
  body = data[variable.offset : variable.offset + variable.size]
  dtype = _DTYPES[variable.dtype]
  array = arrays.as_array(body, dtype, variable.shape, place)
  if tfrecord.masked_crc32c(body) != variable.checksum:
    raise InputError(f"{place} differs from its checksum: get the file again")
  return array
