"""Arrays of texts in .npy files, also those that NumPy stores as a pickle.

The reference's block_records.npy is an array of Python objects, that is, a
pickle. It is read as plain data, and written instruction by instruction.
"""

import os
import re
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.formats import arrays
from realm_jax.formats.plain_pickle import Global, read_pickle

_BATCH = 1000  # records put into the list at once, as Python does
_MAX_HEADER = 10_000  # bytes, as NumPy's
_HEADER = re.compile(  # what np.save writes, spaces at its end
  rb"\{'descr': '(\|O|\|S[1-9]\d{0,8}|[<>]U[1-9]\d{0,8})',"
  rb" 'fortran_order': (?:True|False), 'shape': \((\d{1,18}),\), \} *\n"
)
_BYTE_ORDERS = {"<": "utf-32-le", ">": "utf-32-be"}


def read_texts(path: str | os.PathLike) -> list[bytes | str]:
  """The elements of a one-dimensional array of bytes or str.

  Raises:
    InputError: no such array, a broken file, or a pickle of something else;
      nothing in it is run.
  """
  data = arrays.map_file(path)
  dtype, length, start = _read_header(data, str(path))
  if dtype.kind == "O":
    return _read_pickled(data, str(path), start, length)
  texts = arrays.as_array(data[start:], dtype, (length,), str(path))
  if dtype.kind == "S":
    return texts.tolist()
  # NumPy makes a str of any number, also one that is no letter.
  rows = data[start:].reshape(length, dtype.itemsize)
  try:
    return [_from_utf32(row.tobytes(), dtype.str[0]) for row in rows]
  except UnicodeDecodeError as e:
    raise InputError(
      f"{path}: a text is not Unicode ({e.reason}): get the file again"
    ) from e


def write_bytes(path: str | os.PathLike, records: Collection[bytes]) -> None:
  """Publishes an array of bytes objects, as np.save does with a pickle.

  Raises:
    InputError: no space left on the disk.
  """
  number = len(records).to_bytes(4, "little", signed=True)
  header = {"descr": "|O", "fortran_order": False, "shape": (len(records),)}
  with files.atomic_publish(path) as tmp, tmp.open("wb") as f:
    np.lib.format.write_array_header_1_0(f, header)
    f.write(_BEFORE_LENGTH + b"J" + number + _BEFORE_RECORDS)
    for i, record in enumerate(records):
      if i % _BATCH == 0:
        f.write(b"(" if i == 0 else b"e(")
      f.write(b"B" + len(record).to_bytes(4, "little"))
      f.write(record)
    f.write(b"e" * bool(len(records)) + _AFTER_RECORDS)


# _reconstruct(ndarray, (0,), b"b"), then its state: (1, (length,), dtype("O8")
# with its own state, False, [records]).
_BEFORE_LENGTH = (
  b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n"
  b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01"
)
_BEFORE_RECORDS = (
  b"\x85cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R"
  b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb\x89]"
)
_AFTER_RECORDS = b"tb."


def _read_header(data: np.ndarray, place: str) -> tuple[np.dtype, int, int]:
  """(dtype, length, where the elements begin) of a .npy file."""
  magic, width = data[:8].tobytes(), {1: 2, 2: 4}
  if magic[:-2] != b"\x93NUMPY" or magic[-2] not in width:
    raise InputError(
      f"{place}: not a .npy file of version 1 or 2: get it again"
    )
  start = 8 + width[magic[-2]]
  end = start + int.from_bytes(data[8:start].tobytes(), "little")
  header = data[start : min(end, start + _MAX_HEADER)].tobytes()
  match = _HEADER.fullmatch(header)
  if match is None:
    raise InputError(
      f"{place}: wanted an array [N] of texts (dtype O, S or U); its header is"
      f" {header[:90]!r}"
    )
  return np.dtype(match[1].decode()), int(match[2]), end


def _read_pickled(
  data: np.ndarray, place: str, start: int, length: int
) -> list[bytes | str]:
  reader = _Reader(place, len(data))
  names: dict[str, Any] = {
    "numpy.ndarray": None,
    "numpy.dtype": reader.dtype,
    "_codecs.encode": reader.encode,
    "__builtin__.bytes": reader.empty_bytes,
  }
  for core in ("core", "_core"):  # NumPy 1 and 2
    names[f"numpy.{core}.multiarray._reconstruct"] = reader.array
    names[f"numpy.{core}.multiarray.scalar"] = reader.scalar
  value, end = read_pickle(
    memoryview(data), place, names, start=start, build=reader.set_state
  )
  if not isinstance(value, _Array) or len(value.state) != 1:
    raise InputError(f"{place}: the pickle is not of an array: make it anew")
  if end != len(data) or len(value.state[0]) != length:
    raise InputError(
      f"{place}: {len(value.state[0])} elements in {end} bytes, wanted {length}"
      f" in {len(data)}: get the file again"
    )
  return value.state[0]


class _Array(NamedTuple):
  state: list[list]  # one list of the elements, once they are known


class _Dtype(NamedTuple):
  code: str
  order: list[str]  # one of | < >, once it is known


class _Reader:
  """What the names in the pickle of an array of texts stand for."""

  def __init__(self, place: str, num_bytes: int):
    self._place = place
    self._room = num_bytes  # of what encode may still return

  def _error(self, what: str) -> InputError:
    return InputError(
      f"{self._place}: {what} in the pickle, which is not of an array of texts;"
      " nothing was run. Get the file again, or as JSONL"
    )

  def array(self, args: tuple) -> _Array:
    match args:
      case (Global("numpy.ndarray"), (0,), b"b"):
        return _Array([])
    raise self._error("an array")

  def dtype(self, args: tuple) -> _Dtype:
    match args:
      case (str(code), bool() | 0 | 1, bool() | 0 | 1):
        return _Dtype(code, [])
    raise self._error("a dtype")

  def set_state(self, value: Any, state: Any) -> None:
    match value, state:
      case _Dtype(order=[]), (int(), "|" | "<" | ">" as order, *_):
        value.order.append(order)
      case (
        _Array(state=[]),
        (
          1,
          (int(length),),
          _Dtype("O8" | "O4" | "O"),
          bool() | 0 | 1,
          list(items),
        ),
      ) if length == len(items):
        for item in items:
          if not isinstance(item, (bytes, str)):
            raise self._error(f"a {type(item).__name__}")
        value.state.append(items)
      case _:
        raise self._error("a state")

  def encode(self, args: tuple) -> bytes:
    """How protocol 2 writes bytes."""
    match args:
      case (str(text), "latin1" | "latin-1") if len(text) <= self._room:
        self._room -= len(text)  # or one text, named often, fills the memory
        try:
          return text.encode("latin-1")
        except UnicodeEncodeError:
          pass
    raise self._error("encoded bytes")

  def empty_bytes(self, args: tuple) -> bytes:
    """How protocol 2 writes b""."""
    if args:
      raise self._error("bytes")
    return b""

  def scalar(self, args: tuple) -> bytes | str:
    """numpy.bytes_ and numpy.str_, which some arrays hold."""
    match args:
      case (_Dtype(code), bytes(data)) if code == f"S{len(data)}":
        return data
      case (_Dtype(code, ["<" | ">" as order]), bytes(data)) if (
        code == f"U{len(data) // 4}"
      ):
        try:
          return _from_utf32(data, order)
        except UnicodeDecodeError:
          pass
    raise self._error("a scalar")


def _from_utf32(data: bytes, order: str) -> str:
  return data.decode(_BYTE_ORDERS[order]).rstrip("\0")
