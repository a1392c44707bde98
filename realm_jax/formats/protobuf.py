"""The wire format of protocol buffers, as far as TensorFlow's files need it.

A message comes as field number -> its values in order: an int (varint and
fixed width) or bytes (a text, a packed list or a message inside).
"""

import numpy as np

from realm_jax.config import InputError

Message = dict[int, list[int | bytes]]


def parse_message(data: bytes, place: str) -> Message:
  """The fields of a message; InputError where the bytes are not one."""
  message: Message = {}
  position = 0
  while position < len(data):
    key, position = read_varint(data, position, place)
    kind = key & 7
    if kind == 0:
      value, position = read_varint(data, position, place)
    elif kind == 2:
      size, start = read_varint(data, position, place)
      position = start + size
      value = data[start:position]
    elif kind in (1, 5):
      start, position = position, position + (8 if kind == 1 else 4)
      value = int.from_bytes(data[start:position], "little")
    else:
      raise InputError(f"{place}: a field of kind {kind}: get the file again")
    if position > len(data):
      raise InputError(f"{place}: a field ends early: get the file again")
    message.setdefault(key >> 3, []).append(value)
  return message


def integer(message: Message, number: int, place: str) -> int:
  """The last value of a field of type int; 0 where it has none."""
  value = message.get(number, [0])[-1]
  if not isinstance(value, int):
    raise InputError(f"{place}: field {number} is no number: get it again")
  return value


def texts(message: Message, number: int, place: str) -> list[bytes]:
  """All values of a field of type bytes, string or message."""
  values = message.get(number, [])
  for value in values:
    if not isinstance(value, bytes):
      raise InputError(f"{place}: field {number} is a number: get it again")
  return values


def joined(message: Message, number: int, place: str) -> bytes:
  """The same in one: a message that comes in parts is their concatenation."""
  return b"".join(texts(message, number, place))


def floats(message: Message, number: int, place: str) -> np.ndarray:
  """All values of a repeated float, packed or not, [n] float32."""
  parts = [
    x if isinstance(x, bytes) else x.to_bytes(8, "little")[:4]
    for x in message.get(number, [])
  ]
  if any(len(part) % 4 for part in parts):
    raise InputError(f"{place}: a float ends early: get the file again")
  return np.frombuffer(b"".join(parts), "<f4")


def int64s(message: Message, number: int, place: str) -> np.ndarray:
  """All values of a repeated int64, packed or not, [n] int64."""
  parts = [
    _packed_varints(x, place)
    if isinstance(x, bytes)
    else np.array([x], np.uint64).view(np.int64)
    for x in message.get(number, [])
  ]
  return np.concatenate([np.zeros(0, np.int64), *parts])


def read_varint(data: bytes, position: int, place: str) -> tuple[int, int]:
  """(value below 2**64, first byte after it)."""
  value = 0
  for i, byte in enumerate(data[position : position + 10]):
    value |= (byte & 0x7F) << (7 * i)
    if byte < 0x80 and value < 1 << 64:
      return value, position + i + 1
  raise InputError(f"{place}: a number does not end: get the file again")


def _packed_varints(data: bytes, place: str) -> np.ndarray:
  """A packed list of int64, [n]."""
  encoded = np.frombuffer(data, np.uint8)
  if not len(encoded):
    return np.zeros(0, np.int64)
  ends = np.flatnonzero(encoded < 0x80)
  starts = np.concatenate([[0], ends[:-1] + 1])
  sizes = ends - starts[: len(ends)] + 1
  if encoded[-1] >= 0x80 or np.max(sizes) > 10:
    raise InputError(f"{place}: a number does not end: get the file again")
  shifts = 7 * (np.arange(len(encoded)) - np.repeat(starts, sizes))
  parts = (encoded & 0x7F).astype(np.uint64) << shifts.astype(np.uint64)
  return np.add.reduceat(parts, starts).view(np.int64)
