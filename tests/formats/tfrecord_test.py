"""TFRecords and tf.Examples: what TensorFlow wrote is read, damage is seen."""

import gzip
import pathlib
import struct

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.formats import tfrecord
from tests.formats import damage

DATA = pathlib.Path(__file__).parent.parent / "testdata" / "tf_checkpoint"


def _read(path: pathlib.Path) -> list[bytes]:
  return list(tfrecord.read_tfrecord(path))


def _length(size: int) -> bytes:
  head = struct.pack("<Q", size)
  return head + struct.pack("<I", tfrecord.masked_crc32c(head))


def _record(data: bytes) -> bytes:
  checksum = struct.pack("<I", tfrecord.masked_crc32c(data))
  return _length(len(data)) + data + checksum


def test_the_checksum_is_crc32c_masked():
  crc = 0xE3069283  # of these digits, the catalogue's check value
  rotated = (crc >> 15) | (crc << 17) & 0xFFFFFFFF
  expected = (rotated + 0xA282EAD8) % (1 << 32)
  assert tfrecord.masked_crc32c(b"123456789") == expected
  digits = np.frombuffer(b"123456789", np.uint8)
  assert tfrecord.masked_crc32c(digits) == expected
  long = np.arange(3 << 20, dtype=np.uint32).view(np.uint8)
  assert tfrecord.masked_crc32c(long) == tfrecord.masked_crc32c(long.tobytes())


def test_what_tensorflow_wrote_is_read():
  expected = (DATA / "blocks.txt").read_text("utf-8").split("\n")
  assert [r.decode() for r in _read(DATA / "blocks.tfr")] == expected


def test_what_is_made_by_hand_is_what_tensorflow_wrote():
  records = _read(DATA / "blocks.tfr")
  data = b"".join(map(_record, records))
  assert data == (DATA / "blocks.tfr").read_bytes()


def test_examples_that_tensorflow_wrote_are_read():
  records = _read(DATA / "examples.tfr.gz")
  assert len(records) == 3
  for i, record in enumerate(records):
    example = tfrecord.parse_example(record)
    ids, scores = example.pop("token_ids"), example.pop("scores")
    assert ids.dtype == np.int64 and scores.dtype == np.float32
    assert ids.tolist() == [i, 300, 2**62, -1, -(2**63)]
    assert scores.tolist() == [0.5, i - 1.25]
    assert example.pop("title") == [b"Delft", b"\xff\x00"][: i + 1]
    assert example.pop("no_ids").tolist() == []
    assert example == {"none": []}


def _field(number: int, data: bytes) -> bytes:
  assert len(data) < 128
  return bytes([number << 3 | 2, len(data)]) + data


def _example(*features: tuple[bytes, bytes]) -> bytes:
  entries = [_field(1, _field(1, k) + _field(2, v)) for k, v in features]
  return _field(1, b"".join(entries))


def test_lists_that_are_not_packed_are_read():
  ints = _field(3, b"\x08\x05\x08\xac\x02" + _field(1, b"\x07"))
  floats = _field(2, b"\x0d" + struct.pack("<f", 2.5))
  example = tfrecord.parse_example(_example((b"i", ints), (b"f", floats)))
  assert example["i"].tolist() == [5, 300, 7]
  assert example["f"].tolist() == [2.5]


@pytest.mark.parametrize(
  "data",
  [
    b"\xff",
    b"\x08" + b"\xff" * 10,
    b"\x08" + b"\xff" * 9 + b"\x7f",
    b"\x0b",  # a group
    b"\x0a\x05abc",
    b"\x0a" + b"\xff" * 9 + b"\x01",
    b"\x09abc",
    b"\x0dab",
    b"\x08\x01",  # a number where the features are
    _field(1, b"\x08\x01"),
    _example((b"a", b"\x08\x01")),
    _example((b"a", _field(4, b""))),
    _example((b"a", _field(1, b"") + _field(3, b""))),
    _example((b"a", _field(1, b"\x08\x01"))),
    _example((b"a", _field(2, _field(1, b"abc")))),
    _example((b"a", _field(3, _field(1, b"\xff")))),
    _example((b"a", _field(3, b"\x08" + b"\xff" * 9 + b"\x7f"))),
    _example((b"a", _field(3, _field(1, b"\xff" * 10 + b"\1")))),
    _example((b"a", b""), (b"a", b"")),
  ],
)
def test_no_example_is_refused(data):
  with damage.little_memory(), pytest.raises(InputError, match="here"):
    tfrecord.parse_example(data, "here")


def test_a_damaged_example_is_refused_or_is_another(tmp_path):
  """A message has no checksum of its own (its record has)."""
  path = tmp_path / "example"
  path.write_bytes(_read(DATA / "examples.tfr.gz")[0])

  def read(path):
    return tfrecord.parse_example(path.read_bytes(), str(path))

  for found, _, _ in damage.read_damaged(path, 7, read):
    for value in found.values():
      assert isinstance(value, (list, np.ndarray)) and len(value) < 100


@pytest.mark.parametrize(
  "data, message",
  [
    (b"abc", "record 0 is cut off"),
    (_record(b"abc")[:-1], "record 0 is cut off"),
    (_record(b"abc")[:13], "record 0 is cut off"),
    (_record(b"abc") + _record(b"abc")[:13], "record 1 is cut off"),
    (_length(1 << 27) + b"abc", "record 0 is cut off"),
    (_length(1 << 60) + b"abc", "record 0 has 1152921504606846976 bytes"),
    (b'{"text": "Delft is a city."}', "record 0: its length differs"),
    (
      _record(b"abc").replace(b"abc", b"abd"),
      "record 0 differs from its check",
    ),
  ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_wrong_record_is_refused(tmp_path, data, message, compress):
  path = tmp_path / ("x.tfr" if compress is bytes else "x.tfr.gz")
  path.write_bytes(compress(data))
  with damage.little_memory(), pytest.raises(InputError, match=message):
    _read(path)


@pytest.mark.parametrize(
  "data",
  [
    b"",
    b"abc",
    gzip.compress(b"abc", mtime=0)[:9],
    b"\x1f\x8b\x08" + bytes(99),
  ],
)
def test_a_wrong_gzip_is_refused(tmp_path, data):
  (tmp_path / "x.tfr.gz").write_bytes(data)
  if not data:  # nothing, compressed or not
    assert _read(tmp_path / "x.tfr.gz") == []
    return
  with pytest.raises(InputError, match=r"x.tfr.gz"):
    _read(tmp_path / "x.tfr.gz")


def test_no_file_is_refused(tmp_path):
  with pytest.raises(InputError, match="no such file"):
    _read(tmp_path / "x.tfr")


def test_damage_is_always_seen(tmp_path):
  """But for a file that is cut off between two records."""
  path = tmp_path / "x.tfr"
  path.write_bytes((DATA / "blocks.tfr").read_bytes())
  expected = _read(path)
  for found, _, position in damage.read_damaged(path, 8, _read):
    assert position < 0
    assert found == expected[: len(found)]
