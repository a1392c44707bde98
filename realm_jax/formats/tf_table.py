"""The sorted table of strings in which TensorFlow keeps a checkpoint's index.

It is LevelDB's format: blocks of key-value entries whose keys leave out what
they share with the key before, each with a checksum; an index block with the
places of the others; a footer with the place of that.
"""

from collections.abc import Iterator
from typing import NamedTuple

from realm_jax.config import InputError
from realm_jax.formats import protobuf, tfrecord

_FOOTER = 48
_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_TRAILER = 5  # kind of compression, checksum
_MAX_SHARING = 16  # bytes of all keys, as a multiple of the file's


class _Handle(NamedTuple):
  offset: int
  size: int


def read_table(data: bytes, place: str) -> Iterator[tuple[bytes, bytes]]:
  """Yields the (key, value) of a table in the order of its keys.

  Raises:
    InputError: no table, a block that differs from its checksum or is
      compressed, keys out of order.
  """
  footer = data[-_FOOTER:]
  if len(footer) < _FOOTER or not footer.endswith(_MAGIC):
    raise InputError(
      f"{place}: not the index of a TensorFlow checkpoint: get it again"
    )
  meta, position = _handle(footer, 0, place)
  index, _ = _handle(footer, position, place)
  _block(data, meta, place)  # says nothing, but is part of the file
  last, num_bytes = None, 0
  for _, value in _entries(data, index, place):
    handle, _ = _handle(value, 0, place)
    for key, entry in _entries(data, handle, place):
      num_bytes += len(key)
      if last is not None and key <= last:
        raise InputError(f"{place}: keys out of order: get it again")
      if num_bytes > _MAX_SHARING * len(data):
        raise InputError(f"{place}: keys share too much: get it again")
      last = key
      yield key, entry


def _handle(data: bytes, position: int, place: str) -> tuple[_Handle, int]:
  """The place of a block, and the first byte after it."""
  offset, position = protobuf.read_varint(data, position, place)
  size, position = protobuf.read_varint(data, position, place)
  return _Handle(offset, size), position


def _entries(
  data: bytes, handle: _Handle, place: str
) -> Iterator[tuple[bytes, bytes]]:
  block = _block(data, handle, place)
  num_restarts = int.from_bytes(block[-4:], "little")
  end = len(block) - 4 * (num_restarts + 1)
  if end < 0:
    raise InputError(f"{place}: a block ends early: get it again")
  key = b""
  position = 0
  while position < end:
    shared, position = protobuf.read_varint(block, position, place)
    rest, position = protobuf.read_varint(block, position, place)
    size, position = protobuf.read_varint(block, position, place)
    if shared > len(key) or position + rest + size > end:
      raise InputError(f"{place}: an entry is beyond its block: get it again")
    key = key[:shared] + block[position : position + rest]
    position += rest + size
    yield key, block[position - size : position]


def _block(data: bytes, handle: _Handle, place: str) -> bytes:
  """The bytes of a block, checked."""
  offset = handle.offset
  end = offset + handle.size + _TRAILER
  if end > len(data) - _FOOTER:
    raise InputError(f"{place}: a block is beyond the file: get it again")
  checksum = int.from_bytes(data[end - 4 : end], "little")
  if tfrecord.masked_crc32c(data[offset : end - 4]) != checksum:
    raise InputError(
      f"{place}: the block at byte {offset} differs from its checksum: get it"
      " again"
    )
  if data[end - _TRAILER]:
    raise InputError(
      f"{place}: a compressed block (snappy), as TensorFlow writes none in a"
      " checkpoint: save it anew"
    )
  return data[offset : end - _TRAILER]
