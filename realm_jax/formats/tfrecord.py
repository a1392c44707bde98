"""TFRecord files and the tf.Examples in them, without TensorFlow.

A record is its length (8 bytes), a checksum of these, the bytes, and a
checksum of those: crc32c, rotated and shifted so that a checksum of data that
holds checksums stays one.
"""

import gzip
import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c
import numpy as np

from realm_jax.config import InputError
from realm_jax.formats import protobuf

_MAX_RECORD = 1 << 28  # bytes; a longer one is neither a block nor an example
_PIECE = 1 << 20


def read_tfrecord(path: str | os.PathLike) -> Iterator[bytes]:
  """Yields the records of a TFRecord file; gzipped if its name ends in .gz.

  Raises:
    InputError: no such file, a record that is cut off or differs from its
      checksum.
  """
  path = pathlib.Path(path)
  opener = gzip.open if path.suffix == ".gz" else open
  try:
    with opener(path, "rb") as f:
      number = 0
      while head := f.read(12):
        yield _read_record(f, head, f"{path}: record {number}")
        number += 1
  except FileNotFoundError as e:
    raise InputError(f"{path}: no such file") from e
  except (OSError, EOFError, zlib.error) as e:  # also gzip's BadGzipFile
    raise InputError(f"{path}: cannot be read ({e}): get it again") from e


def parse_example(
  data: bytes, place: str = "tf.Example"
) -> dict[str, list[bytes] | np.ndarray]:
  """The features of a serialized tf.Example by name.

  Returns:
    A list of bytes, or an array [n] of float32 or int64, each.

  Raises:
    InputError: not a tf.Example; `place` names it.
  """
  example = protobuf.parse_message(data, place)
  entries = protobuf.parse_message(protobuf.joined(example, 1, place), place)
  features: dict[str, list[bytes] | np.ndarray] = {}
  for entry in protobuf.texts(entries, 1, place):
    field = protobuf.parse_message(entry, place)
    name = protobuf.joined(field, 1, place).decode("utf-8", "backslashreplace")
    if name in features:
      raise InputError(f"{place}: the feature {name[:60]!r} is there twice")
    value = protobuf.joined(field, 2, place)
    features[name] = _parse_feature(value, f"{place}: {name[:60]!r}")
  return features


def masked_crc32c(data: bytes | np.ndarray) -> int:
  """The checksum of TFRecords and TensorFlow's checkpoints.

  Args:
    data: bytes, or [size] uint8, which may be mapped and large.
  """
  crc = 0
  for start in range(0, len(data), _PIECE):
    crc = google_crc32c.extend(crc, bytes(data[start : start + _PIECE]))
  return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _read_record(f: BinaryIO, head: bytes, place: str) -> bytes:
  if len(head) < 12:
    raise InputError(f"{place} is cut off: get the file again")
  size = int.from_bytes(head[:8], "little")
  if masked_crc32c(head[:8]) != int.from_bytes(head[8:], "little"):
    raise InputError(
      f"{place}: its length differs from its checksum: get the file again, or"
      " it is no TFRecord"
    )
  if size > _MAX_RECORD:
    raise InputError(f"{place} has {size} bytes, over {_MAX_RECORD}: split it")
  record = _read_whole(f, size, place)
  if masked_crc32c(record) != int.from_bytes(
    _read_whole(f, 4, place), "little"
  ):
    raise InputError(f"{place} differs from its checksum: get the file again")
  return record


def _read_whole(f: BinaryIO, size: int, place: str) -> bytes:
  """Piece by piece: a length that lies takes no memory."""
  pieces = []
  while size and (piece := f.read(min(size, _PIECE))):
    pieces.append(piece)
    size -= len(piece)
  if size:
    raise InputError(f"{place} is cut off: get the file again")
  return b"".join(pieces)


def _parse_feature(data: bytes, place: str) -> list[bytes] | np.ndarray:
  """A feature is one list: of bytes (1), floats (2) or int64 (3)."""
  feature = protobuf.parse_message(data, place)
  if not feature:
    return []
  if len(feature) != 1 or not feature.keys() <= {1, 2, 3}:
    raise InputError(f"{place} is no list of bytes, floats or ints")
  [kind] = feature
  values = protobuf.parse_message(protobuf.joined(feature, kind, place), place)
  if kind == 1:
    return protobuf.texts(values, 1, place)
  if kind == 2:
    return protobuf.floats(values, 1, place)
  return protobuf.int64s(values, 1, place)
