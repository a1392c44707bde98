"""TensorFlow's checkpoints: what TensorFlow wrote is read, lies are not."""

import pathlib
import shutil
import struct

import ml_dtypes
import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.formats import tf_checkpoint, tf_table, tfrecord
from tests.formats import damage

DATA = pathlib.Path(__file__).parent.parent / "testdata" / "tf_checkpoint"
CHECKPOINT = DATA / "model.ckpt-300000"


def _expected() -> dict[str, np.ndarray]:
  expected = dict(np.load(DATA / "expected.npz"))
  name = "dtypes/bfloat16"
  return expected | {name: expected[name].astype(ml_dtypes.bfloat16)}


def _check_equal(found, expected):
  assert found.keys() == expected.keys()
  for name, x in expected.items():
    assert (found[name].shape, found[name].dtype) == (x.shape, x.dtype), name
    np.testing.assert_array_equal(found[name], x, name)


def test_what_tensorflow_wrote_is_read():
  _check_equal(tf_checkpoint.read_variables(CHECKPOINT), _expected())
  variables = tf_checkpoint.list_variables(CHECKPOINT)
  assert {v.shard for v in variables.values()} == {0, 1}
  assert variables["block_emb"].shape == (7, 3)
  assert variables["module/module/dense/kernel"].shape == (4, 3)


def test_some_variables_are_read_without_the_other_data_file(tmp_path):
  for path in DATA.glob("model.ckpt-300000.*"):
    shutil.copy(path, tmp_path)
  variables = tf_checkpoint.list_variables(tmp_path)
  shard = variables["block_emb"].shard
  other = tmp_path / f"{CHECKPOINT.name}.data-{1 - shard:05}-of-00002"
  other.unlink()
  read = tf_checkpoint.read_variables(tmp_path, ["block_emb"])
  _check_equal(read, {"block_emb": _expected()["block_emb"]})
  assert not read["block_emb"].flags.writeable
  with pytest.raises(InputError, match=r"data-0000\d-of-00002: no such file"):
    tf_checkpoint.read_variables(tmp_path)


def test_a_hub_module_is_read():
  read = tf_checkpoint.read_variables(DATA / "saved_model")
  expected = {
    f"module/dense/{x}": _expected()[f"module/module/dense/{x}"]
    for x in ("kernel", "bias")
  }
  _check_equal(read, expected)


def test_the_strings_of_tf2_are_left_out():
  read = tf_checkpoint.read_variables(DATA / "object")
  name = "x/.ATTRIBUTES/VARIABLE_VALUE"
  _check_equal(read, {name: np.array([1, 2], np.float32)})
  with pytest.raises(InputError, match=r"GRAPH' is of no numeric dtype.*7"):
    tf_checkpoint.read_variables(
      DATA / "object", ["_CHECKPOINTABLE_OBJECT_GRAPH"]
    )


def test_parts_are_refused():
  with pytest.raises(InputError, match="'parts' is stored in parts"):
    tf_checkpoint.read_variables(DATA / "partitioned" / "model.ckpt-1")


def test_an_unknown_name_is_refused_with_close_ones():
  with pytest.raises(InputError, match=r"no variable 'blockemb'.*'block_emb'"):
    tf_checkpoint.read_variables(CHECKPOINT, ["blockemb"])


@pytest.mark.parametrize("name", ["", "model.ckpt-1", "x/y"])
def test_no_checkpoint_is_refused(tmp_path, name):
  with pytest.raises(InputError, match="no TensorFlow checkpoint"):
    tf_checkpoint.read_variables(tmp_path / name)


def test_of_several_one_must_be_named(tmp_path):
  for step in (1, 2):
    (tmp_path / f"model.ckpt-{step}.index").touch()
  with pytest.raises(InputError, match=r"2 checkpoints; name .*model.ckpt-2$"):
    tf_checkpoint.read_variables(tmp_path)


# Checkpoints made by hand, to lie in them.


def _varint(x: int) -> bytes:
  head = b""
  while x > 127:
    head += bytes([x & 127 | 128])
    x >>= 7
  return head + bytes([x])


def _number(field: int, x: int) -> bytes:
  return _varint(field << 3) + _varint(x)


def _inside(field: int, data: bytes) -> bytes:
  return _varint(field << 3 | 2) + _varint(len(data)) + data


def _entry(
  dtype=1, shape=(2,), shard=0, offset=0, size=8, body=bytes(8), more=b""
) -> bytes:
  dims = b"".join(_inside(2, _number(1, n)) for n in shape)
  checksum = struct.pack("<I", tfrecord.masked_crc32c(body))
  return (
    _number(1, dtype) + _inside(2, dims) + _number(3, shard)
    + _number(4, offset) + _number(5, size) + b"\x35" + checksum + more
  )  # fmt: skip


HEADER = (b"", _number(1, 1))


def _block(pairs: list[tuple[bytes, bytes]], kind: int = 0) -> bytes:
  body = b"".join(
    b"\0" + _varint(len(k)) + _varint(len(v)) + k + v for k, v in pairs
  )
  body += struct.pack("<II", 0, 1) + bytes([kind])
  return body + struct.pack("<I", tfrecord.masked_crc32c(body))


def _table(blocks: list[bytes]) -> bytes:
  data, index = b"", []
  for i, block in enumerate(blocks):
    handle = _varint(len(data)) + _varint(len(block) - 5)
    index.append((bytes([255, i]), handle))
    data += block
  meta, last = _block([]), _block(index)
  handles = [(len(data), len(meta) - 5)]
  handles.append((len(data) + len(meta), len(last) - 5))
  footer = b"".join(_varint(x) for handle in handles for x in handle)
  return data + meta + last + footer.ljust(40, b"\0") + tf_table._MAGIC


def _write(directory: pathlib.Path, *pairs, body=bytes(8)) -> pathlib.Path:
  (directory / "x.index").write_bytes(_table([_block([HEADER, *pairs])]))
  (directory / "x.data-00000-of-00001").write_bytes(body)
  return directory / "x"


def test_a_checkpoint_made_by_hand_is_read(tmp_path):
  read = tf_checkpoint.read_variables(_write(tmp_path, (b"a", _entry())))
  _check_equal(read, {"a": np.zeros(2, np.float32)})


def test_blocks_are_read_in_order():
  pairs = [(b"%03d" % i, b"v" * i) for i in range(9)]
  table = _table([_block(pairs[:4]), _block(pairs[4:5]), _block(pairs[5:])])
  assert list(tf_table.read_table(table, "here")) == pairs


@pytest.mark.parametrize(
  "entry, message",
  [
    (_entry(shape=(3,)), "takes 12 bytes, but the file has 8"),
    (_entry(shape=(2**62,)), "but the file has 8"),
    (_entry(shape=(2**64 - 1,)), "but the file has 8"),
    (_entry(shape=(0, 2**63), size=0, body=b""), "is none of an array"),
    (_entry(size=4), "takes 8 bytes, but the file has 4"),
    (_entry(size=2**60), "is not all in the data"),
    (_entry(offset=4), "takes 8 bytes, but the file has 4"),
    (_entry(offset=2**63), "takes 8 bytes, but the file has 0"),
    (_entry(body=bytes(7)), "'a' differs from its checksum"),
    (_entry(dtype=7), "no variables|of no numeric"),
    (_entry(dtype=99), "dtype 99"),
    (_entry(shard=2**40), r"data-1099511627776-of-00001: no such file"),
    (_entry(more=_inside(7, b"")), "stored in parts"),
    (b"\x0a\1a", "field 1 is no number"),
    (b"\xff", "a number does not end"),
    (b"\x12\x02\x08\x01", "takes|dtype 0"),
  ],
)
def test_a_lying_entry_is_refused(tmp_path, entry, message):
  prefix = _write(tmp_path, (b"a", entry))
  with damage.little_memory(), pytest.raises(InputError, match=message):
    tf_checkpoint.read_variables(prefix, ["a"])


def test_a_bool_of_two_is_refused(tmp_path):
  entry = _entry(dtype=10, shape=(8,), body=b"\2" * 8)
  with pytest.raises(InputError, match="neither 0 nor 1"):
    tf_checkpoint.read_variables(
      _write(tmp_path, (b"a", entry), body=b"\2" * 8)
    )


def test_more_variables_than_data_are_refused(tmp_path):
  """Or a small index makes us read one large variable for ever."""
  pairs = [(b"%d" % i, _entry()) for i in range(9)]
  with pytest.raises(InputError, match="is not all in the data"):
    tf_checkpoint.read_variables(_write(tmp_path, *pairs))


GOOD = (b"a", _entry())


@pytest.mark.parametrize(
  "table, message",
  [
    (b"", "not the index of a TensorFlow checkpoint"),
    (bytes(99), "not the index of a TensorFlow checkpoint"),
    (_table([]), "lacks the header"),
    (_table([_block([GOOD])]), "lacks the header"),
    (_table([_block([HEADER, GOOD], kind=1)]), "snappy"),
    (_table([_block([HEADER, GOOD, GOOD])]), "keys out of order"),
    (_table([_block([HEADER, (b"b", _entry()), GOOD])]), "keys out of order"),
    (_table([_block([HEADER, GOOD])] * 2), "keys out of order"),
    (_table([_block([(b"", _number(1, 1) + _number(2, 1))])]), "big-endian"),
    (_table([b"\0" * 13]), "differs from its checksum"),
    (b"\xff" * 40 + tf_table._MAGIC, "a number does not end"),
    (bytes(40) + tf_table._MAGIC, "a block is beyond the file"),
    (
      (b"\0\0" + _varint(2**63) * 2).ljust(40, b"\0") + tf_table._MAGIC,
      "a block is beyond the file",
    ),
  ],
)
def test_a_lying_index_is_refused(tmp_path, table, message):
  (tmp_path / "x.index").write_bytes(table)
  with damage.little_memory(), pytest.raises(InputError, match=message):
    tf_checkpoint.read_variables(tmp_path / "x")


@pytest.mark.parametrize(
  "body",
  [
    b"",
    b"\0\0\0",
    struct.pack("<I", 9),
    struct.pack("<I", 2**32 - 1),
    b"\x01\x00\x00" + struct.pack("<II", 0, 1),  # shares what is not there
    b"\x00\x09\x00a" + struct.pack("<II", 0, 1),
    b"\x00\x01\x09a" + struct.pack("<II", 0, 1),
    b"\x00\x01" + struct.pack("<II", 0, 1),
  ],
)
def test_a_lying_block_is_refused(body):
  body += b"\0"
  block = body + struct.pack("<I", tfrecord.masked_crc32c(body))
  with pytest.raises(InputError, match="here"):
    list(tf_table.read_table(_table([block]), "here"))


def test_keys_that_share_without_end_are_refused():
  body = b"\0" + _varint(1 << 16) + b"\0" + b"a" * (1 << 16)
  for i in range(10_000):
    body += _varint(1 << 16) + b"\4\0" + struct.pack(">I", i)
  body += struct.pack("<II", 0, 1) + b"\0"
  block = body + struct.pack("<I", tfrecord.masked_crc32c(body))
  with damage.little_memory(), pytest.raises(InputError, match="share too"):
    for _ in tf_table.read_table(_table([block]), "here"):
      pass


@pytest.mark.parametrize(
  "suffix", ["index", "data-00000-of-00002", "data-00001-of-00002"]
)
def test_damage_is_seen(tmp_path, suffix):
  """All has a checksum but the padding in the index's footer."""
  for path in DATA.glob("model.ckpt-300000.*"):
    shutil.copy(path, tmp_path)
  path = tmp_path / f"{CHECKPOINT.name}.{suffix}"
  footer = path.stat().st_size - tf_table._FOOTER

  def read(_):
    return tf_checkpoint.read_variables(tmp_path)

  for found, _, position in damage.read_damaged(path, 9, read):
    assert suffix == "index" and position >= footer
    _check_equal(found, _expected())
