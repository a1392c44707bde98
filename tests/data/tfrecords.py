"""TFRecords and tf.Examples of short texts, made by hand."""

import struct

from realm_jax.formats import tfrecord


def records(*texts):
  """The bytes of a TFRecord file."""
  made = b""
  for text in texts:
    head = struct.pack("<Q", len(text))
    made += head + struct.pack("<I", tfrecord.masked_crc32c(head))
    made += text + struct.pack("<I", tfrecord.masked_crc32c(text))
  return made


def example(**features):
  """A tf.Example of a text or a list of small numbers each.

  No part of it may reach 128 bytes.
  """
  entries = [
    _field(1, _field(1, name.encode()) + _field(2, _feature(value)))
    for name, value in features.items()
  ]
  return _field(1, b"".join(entries))


def _feature(value):
  if isinstance(value, bytes):
    return _field(1, _field(1, value))
  return _field(3, _field(1, bytes(value)))


def _field(number, data):
  assert len(data) < 128
  return bytes([number << 3 | 2, len(data)]) + data
