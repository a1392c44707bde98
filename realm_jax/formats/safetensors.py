"""Safetensors: what transformers writes as model.safetensors, in one file or
in shards. The library checks the header and writes; reading maps the file."""

import os
import pathlib

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.formats import arrays, shards, strict_json

_DTYPES = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": arrays.BFLOAT16,
  "I64": np.dtype("<i8"),
  "I32": np.dtype("<i4"),
  "I16": np.dtype("<i2"),
  "I8": np.dtype("i1"),
  "U64": np.dtype("<u8"),
  "U32": np.dtype("<u4"),
  "U16": np.dtype("<u2"),
  "U8": np.dtype("u1"),
  "BOOL": np.dtype("?"),
}
_METADATA = "__metadata__"


def read_tensors(
  path: str | os.PathLike, *, upcast: bool = False
) -> dict[str, np.ndarray]:
  """Name -> read-only array, mapped from the file.

  Args:
    path: model.safetensors, or the model.safetensors.index.json of shards.
    upcast: make float32 of float16 and bfloat16 instead of keeping them.

  Raises:
    InputError: a file that is missing, broken, or of a dtype we do not take.
  """
  path = pathlib.Path(path)
  if path.name.endswith(shards.SUFFIX):
    tensors = shards.read_shards(path, _read_file)
  else:
    tensors = _read_file(path)
  return arrays.upcast(tensors) if upcast else tensors


def write_tensors(
  path: str | os.PathLike,
  tensors: dict[str, np.ndarray],
  shard_bytes: int | None = None,
) -> None:
  """Publishes tensors so that transformers reads them back.

  Args:
    path: model.safetensors.
    tensors: name -> array.
    shard_bytes: how much goes into a file. If all is more, shards
      model-00001-of-00009.safetensors and then model.safetensors.index.json
      are written. The form that is not written is removed, so that an older
      checkpoint is not taken for the new one; an older index goes first, so
      that it never names shards of two checkpoints.

  Raises:
    InputError: a dtype or name the format lacks, no space left on the disk.
  """
  path = pathlib.Path(path)
  tensors = {name: _writable(name, x) for name, x in tensors.items()}
  index = path.with_name(path.name + shards.SUFFIX)
  groups = _split(tensors, shard_bytes)
  index.unlink(missing_ok=True)
  if len(groups) == 1:
    _write_file(path, tensors)
    return
  weight_map = {}
  for i, group in enumerate(groups, 1):
    name = f"{path.stem}-{i:05}-of-{len(groups):05}{path.suffix}"
    _write_file(path.with_name(name), group)
    weight_map |= dict.fromkeys(group, name)
  total_size = sum(x.nbytes for x in tensors.values())
  metadata = {"total_size": total_size}
  files.write_json(index, {"metadata": metadata, "weight_map": weight_map})
  path.unlink(missing_ok=True)


def _read_file(path: pathlib.Path) -> dict[str, np.ndarray]:
  data = arrays.map_file(path)
  try:  # is the header in range, without a hole or an overlap?
    with safe_open(path, framework="np"):
      pass
  except SafetensorError as e:
    raise InputError(
      f"{path}: not a whole safetensors file ({str(e)[:90]!r}): get it again"
    ) from e
  start = 8 + int.from_bytes(data[:8].tobytes(), "little")
  header = strict_json.parse_json(data[8:start].tobytes(), f"{path}: header")
  tensors = {}
  for name, entry in header.items():
    if name == _METADATA:
      continue
    place = f"{path}: {name[:80]!r}"
    if entry["dtype"] not in _DTYPES:
      raise InputError(
        f"{place} is {entry['dtype']}: wanted one of {', '.join(_DTYPES)}"
      )
    first, end = entry["data_offsets"]
    body = data[start + first : start + end]
    dtype = _DTYPES[entry["dtype"]]
    tensors[name] = arrays.as_array(body, dtype, entry["shape"], place)
  return tensors


def _writable(name: str, x: np.ndarray) -> np.ndarray:
  """x in the memory layout of the file."""
  if x.dtype.newbyteorder("<") not in _DTYPES.values() or name == _METADATA:
    raise InputError(
      f"{name[:80]!r} of dtype {x.dtype}: safetensors has no such tensor"
    )
  return np.asarray(x, x.dtype.newbyteorder("="), order="C")


def _split(
  tensors: dict[str, np.ndarray], shard_bytes: int | None
) -> list[dict[str, np.ndarray]]:
  """In the given order, as many to a group as fit; a large one alone."""
  if shard_bytes is None:
    return [tensors]
  if shard_bytes < 1:
    raise InputError(f"shard_bytes={shard_bytes}: wanted a whole number >= 1")
  groups: list[dict[str, np.ndarray]] = [{}]
  room = shard_bytes
  for name, x in tensors.items():
    if x.nbytes > room and groups[-1]:
      groups.append({})
      room = shard_bytes
    groups[-1][name] = x
    room -= x.nbytes
  return groups


def _write_file(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
  with files.atomic_publish(path) as tmp:
    try:
      save_file(tensors, tmp, metadata={"format": "pt"})  # transformers asks it
    except SafetensorError as e:  # the library's word for a full disk, too
      raise InputError(f"{path}: cannot be written ({str(e)[:200]})") from e
