"""Torch's files: what torch wrote is read as torch meant it; the rest is not
read, and never run."""

import io
import json
import pathlib
import shutil
import struct
import zipfile

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.formats import safetensors, torch_bin
from tests.formats import damage

DATA = pathlib.Path(__file__).parent.parent / "testdata" / "torch_bin"
FORMS = ("zip.bin", "legacy.bin", "no_crc.bin")


def _expected(name: str = "expected") -> dict[str, np.ndarray]:
  tensors = safetensors.read_tensors(DATA / f"{name}.safetensors")
  return {k: x.copy() for k, x in tensors.items()}


def _check_equal(found, expected):
  assert found.keys() == expected.keys()
  for name, x in expected.items():
    assert (found[name].shape, found[name].dtype) == (x.shape, x.dtype), name
    np.testing.assert_array_equal(found[name], x, name)


@pytest.mark.parametrize("name", FORMS)
def test_what_torch_wrote_is_read(name):
  read = torch_bin.read_tensors(DATA / name)
  _check_equal(read, _expected())
  assert np.shares_memory(read["shared"], read["shared_rows"])
  assert np.shares_memory(read["shared"], read["shared_column"])
  assert not any(x.flags.writeable for x in read.values())
  assert read["transposed"].strides == (4, 24)  # a view, not a copy


def test_a_state_dict_with_versions_is_read():
  _check_equal(
    torch_bin.read_tensors(DATA / "state_dict.bin"), _expected("state_dict")
  )


def test_upcast_makes_float32_of_halves_only():
  read = torch_bin.read_tensors(DATA / "zip.bin", upcast=True)
  expected = _expected()
  for name in ("float16", "bfloat16"):
    expected[name] = expected[name].astype(np.float32)
  _check_equal(read, expected)


def _rewritten(path: pathlib.Path, changes: dict[str, bytes], **options):
  """zip.bin with other bytes for some members (None: left out), at path."""
  with (
    zipfile.ZipFile(DATA / "zip.bin") as old,
    zipfile.ZipFile(path, "w", **options) as new,
  ):
    for name in old.namelist():
      body = changes.get(name.partition("/")[2], old.read(name))
      if body is not None:
        new.writestr(name, body)
  return path


def _member(name: str) -> bytes:
  with zipfile.ZipFile(DATA / "zip.bin") as file:
    return file.read(f"zip/{name}")


def test_a_big_endian_file_is_read(tmp_path):
  # The size of an element, storage by storage in the order of first use.
  sizes = [4, 4, 4, 4, 2, 2, 8, 8, 8, 4, 1, 1, 4, 4, 4]
  changes = {"byteorder": b"big"}
  for i, size in enumerate(sizes):
    elements = np.frombuffer(_member(f"data/{i}"), np.uint8).reshape(-1, size)
    changes[f"data/{i}"] = elements[:, ::-1].tobytes()
  path = _rewritten(tmp_path / "big.bin", changes)
  _check_equal(torch_bin.read_tensors(path), _expected())


def test_a_file_before_byte_orders_is_little_endian(tmp_path):
  path = _rewritten(tmp_path / "old.bin", {"byteorder": None})
  _check_equal(torch_bin.read_tensors(path), _expected())


def test_shards_are_read_like_one_file(tmp_path):
  shutil.copy(DATA / "zip.bin", tmp_path / "pytorch_model-1.bin")
  shutil.copy(DATA / "state_dict.bin", tmp_path / "pytorch_model-2.bin")
  weight_map = dict.fromkeys(_expected(), "pytorch_model-1.bin")
  weight_map |= dict.fromkeys(_expected("state_dict"), "pytorch_model-2.bin")
  index = tmp_path / "pytorch_model.bin.index.json"
  index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
  both = _expected() | _expected("state_dict")
  _check_equal(torch_bin.read_tensors(index), both)
  (tmp_path / "pytorch_model-2.bin").unlink()
  with pytest.raises(InputError, match=r"index.json.*pytorch_model-2.bin"):
    torch_bin.read_tensors(index)


# Archives that lie.


@pytest.mark.parametrize(
  "changes, options, message",
  [
    ({}, {"compression": zipfile.ZIP_DEFLATED}, "is compressed"),
    ({"data.pkl": None}, {}, "without torch's data.pkl"),
    ({"data/0": None}, {}, "lacks 'data/0'"),
    ({"data/0": b""}, {}, "takes 96 bytes, but the file has 0"),
    ({"data/0": bytes(97)}, {}, "takes 96 bytes, but the file has 97"),
    ({"byteorder": b"middle"}, {}, "byte order b'middle'"),
    ({"data.pkl": b""}, {}, "the pickle ends"),
    ({"data.pkl": b"\x80\x02}.\0"}, {}, "1 bytes too many"),
    (
      {"data.pkl": b"\x80\x02ccollections\nOrderedDict\n(]tR."},
      {},
      "a dict that torch would not write",
    ),
    ({"data.pkl": b"\x80\x02]."}, {}, "wanted a dict of names"),
    ({"data.pkl": b"\x80\x02}X\1\0\0\0aK\1s."}, {}, "'a' is a int.*state_dict"),
    ({"data.pkl": b"\x80\x02}K\1K\1s."}, {}, "a key that is a int"),
  ],
)
def test_a_wrong_archive_is_refused(tmp_path, changes, options, message):
  path = _rewritten(tmp_path / "x.bin", changes, **options)
  with damage.little_memory(), pytest.raises(InputError, match=message):
    torch_bin.read_tensors(path)


def test_a_bomb_is_refused(tmp_path):
  path = _rewritten(
    tmp_path / "x.bin",
    {"data/0": bytes(1 << 26)},
    compression=zipfile.ZIP_DEFLATED,
  )
  assert path.stat().st_size < 1 << 17
  with damage.little_memory(), pytest.raises(InputError, match="compressed"):
    torch_bin.read_tensors(path)


def test_a_name_twice_is_refused(tmp_path):
  path = _rewritten(tmp_path / "x.bin", {})
  with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning):
    file.writestr("zip/data/0", bytes(96))
  with pytest.raises(InputError, match="a name twice"):
    torch_bin.read_tensors(path)


@pytest.mark.parametrize(
  "data", [b"", b"PK", bytes(99), b"\x80\x02}.", b"#!/bin/sh\n" * 9]
)
def test_no_archive_is_refused(tmp_path, data):
  (tmp_path / "x.bin").write_bytes(data)
  with pytest.raises(InputError, match="neither a zip archive nor an older"):
    torch_bin.read_tensors(tmp_path / "x.bin")


def test_a_member_that_is_elsewhere_is_refused(tmp_path):
  """The list of members says data/1, but at its place begins another."""
  data = (DATA / "zip.bin").read_bytes()
  where = data.index(b"zip/data/1")
  changed = data[:where] + b"zip/data/X" + data[where + 10 :]
  (tmp_path / "x.bin").write_bytes(changed)
  with pytest.raises(InputError, match="'data/1' is not where the list"):
    torch_bin.read_tensors(tmp_path / "x.bin")


def test_a_checksum_that_differs_is_refused(tmp_path):
  data = (DATA / "zip.bin").read_bytes()
  payload = _member("data/1")
  assert data.count(payload) == 1
  changed = bytes([payload[0] ^ 1]) + payload[1:]
  (tmp_path / "x.bin").write_bytes(data.replace(payload, changed))
  with pytest.raises(InputError, match="'data/1' differs from its checksum"):
    torch_bin.read_tensors(tmp_path / "x.bin")


# Tensors that lie, in archives that do not.


def _int(x: int) -> bytes:
  size = (x.bit_length() + 8) // 8
  return b"\x8a" + bytes([size]) + x.to_bytes(size, "little", signed=True)


def _tuple(*values: int) -> bytes:
  return b"(" + b"".join(_int(x) for x in values) + b"t"


def _text(text: str) -> bytes:
  return b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()


def _storage(kind="FloatStorage", key="0", size=6) -> bytes:
  return (
    b"(" + _text("storage") + f"ctorch\n{kind}\n".encode()
    + _text(key) + _text("cpu") + _int(size) + b"tQ"
  )  # fmt: skip


def _rebuild(
  storage: bytes = b"",
  offset: bytes = b"K\0",
  shape: bytes = b"K\2K\3\x86",
  strides: bytes = b"K\3K\1\x86",
) -> bytes:
  return (
    b"ctorch._utils\n_rebuild_tensor_v2\n(" + (storage or _storage())
    + offset + shape + strides + b"\x89}tR"
  )  # fmt: skip


def _archive(path: pathlib.Path, *tensors: bytes, body=bytes(range(24))):
  """A file whose tensors "0", "1", ... are all in the storage "0"."""
  items = b"".join(_text(str(i)) + t for i, t in enumerate(tensors))
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("x/data.pkl", b"\x80\x02}(" + items + b"u.")
    file.writestr("x/data/0", body)
  return path


def test_an_archive_made_by_hand_is_read(tmp_path):
  path = _archive(tmp_path / "x.bin", _rebuild())
  expected = np.frombuffer(bytes(range(24)), np.float32).reshape(2, 3)
  _check_equal(torch_bin.read_tensors(path), {"0": expected})


@pytest.mark.parametrize(
  "tensor",
  [
    _rebuild(offset=_int(1)),
    _rebuild(offset=_int(-1)),
    _rebuild(offset=_int(2**70)),
    _rebuild(offset=b"\x88"),
    _rebuild(shape=_tuple(3, 3)),
    _rebuild(shape=_tuple(2, -3)),
    _rebuild(shape=_tuple(2)),
    _rebuild(shape=_tuple(2**62, 4), strides=_tuple(0, 0)),  # 2**64 zeros
    _rebuild(shape=_tuple(7), strides=_tuple(0)),
    _rebuild(shape=b"](K\2K\3e"),
    _rebuild(strides=_tuple(3, 2)),
    _rebuild(strides=_tuple(-3, 1)),
    _rebuild(strides=_tuple(2**62, 1)),
    _rebuild(shape=_tuple(*[1] * 33), strides=_tuple(*[1] * 33)),
    _rebuild(shape=_tuple(0, 2**62, 9), strides=_tuple(1, 1, 1)),
    _rebuild(shape=_tuple(0, 2**70), strides=_tuple(1, 1)),
    _rebuild(storage=b"N"),
    _rebuild(storage=_storage(size=2**62)),
    _rebuild(storage=_storage(size=-6)),
    _rebuild(storage=_storage(kind="DoubleStorage")),
    _rebuild(storage=_storage(kind="QInt8Storage")),
    _rebuild(storage=_storage(kind="BoolStorage", size=24)),
    _rebuild(storage=_storage(key="../../../etc/passwd")),
    _rebuild(storage=b"K\1Q"),
    _rebuild(storage=_storage()[:-2] + b"K\1tQ"),  # a view of a storage
    _rebuild(storage=b"(" + _text("module") + b"tQ"),
    b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    b"ctorch._utils\n_rebuild_parameter\n(K\1K\1K\1tR",
    b"ctorch._utils\n_rebuild_tensor_v2\nctorch\nFloatStorage\nR",
    b"ctorch\nFloatStorage\n)R",
    b"ccollections\nOrderedDict\n(]tR",
    _rebuild() + b"}b",
  ],
)
def test_a_lying_tensor_is_refused(tmp_path, tensor):
  path = _archive(tmp_path / "x.bin", tensor)
  with damage.little_memory(), pytest.raises(InputError, match=r"x\.bin"):
    torch_bin.read_tensors(path)


def test_a_stride_that_no_step_takes_does_not_matter(tmp_path):
  tensor = _rebuild(shape=_tuple(1, 6), strides=_tuple(2**70, 1))
  read = torch_bin.read_tensors(_archive(tmp_path / "x.bin", tensor))
  assert read["0"].shape == (1, 6)


def test_one_storage_of_two_kinds_is_refused(tmp_path):
  other = _rebuild(storage=_storage(kind="IntStorage"))
  path = _archive(tmp_path / "x.bin", _rebuild(), other)
  with pytest.raises(InputError, match="a storage that torch would not"):
    torch_bin.read_tensors(path)


def test_endless_sharing_is_refused(tmp_path):
  tensor = _rebuild(
    storage=_storage(size=1 << 16), shape=_tuple(1 << 16), strides=_tuple(1)
  )
  body = bytes(1 << 18)
  path = _archive(tmp_path / "x.bin", *[tensor] * 3, body=body)
  assert len(torch_bin.read_tensors(path)) == 3  # as tied weights do
  path = _archive(tmp_path / "x.bin", *[tensor] * 30, body=body)
  with pytest.raises(InputError, match="over 16 times as large"):
    torch_bin.read_tensors(path)


def test_a_tensor_twice_is_refused(tmp_path):
  items = 2 * (_text("a") + _rebuild())
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w") as file:
    file.writestr("x/data.pkl", b"\x80\x02}(" + items + b"u.")
    file.writestr("x/data/0", bytes(24))
  (tmp_path / "x.bin").write_bytes(buffer.getvalue())
  with pytest.raises(InputError, match="the key 'a' is there twice"):
    torch_bin.read_tensors(tmp_path / "x.bin")


# Damage.


def test_a_damaged_file_is_refused_or_reads_the_same(tmp_path):
  """Every member has a checksum; what may change without a word are bytes
  that say nothing (padding, dates)."""
  path = tmp_path / "model.bin"
  shutil.copy(DATA / "zip.bin", path)
  expected = _expected()
  for found, _, position in damage.read_damaged(
    path, 3, torch_bin.read_tensors
  ):
    assert position >= 0
    _check_equal(found, expected)


@pytest.mark.parametrize("name", ["legacy.bin", "no_crc.bin"])
def test_damage_without_checksums_stays_in_one_storage(tmp_path, name):
  """Nothing in these files says that a byte is wrong. It may change the
  values or the shape of a tensor, and of those that share its storage, and
  nothing else."""
  path = tmp_path / "model.bin"
  shutil.copy(DATA / name, path)
  expected = _expected()
  for found, _, position in damage.read_damaged(
    path, 4, torch_bin.read_tensors
  ):
    assert position >= 0
    differ = {k for k in expected if not _same(found.get(k), expected[k])}
    sharing = differ <= {"shared", "shared_rows", "shared_column"}
    assert sharing or len(differ) == 1
    assert len(found) == len(expected)


def _same(x: np.ndarray | None, y: np.ndarray) -> bool:
  return x is not None and (x.dtype, x.shape, x.tobytes()) == (
    y.dtype,
    y.shape,
    y.tobytes(),
  )


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda data: data + b"\0", "bytes with"),
    (lambda data: data[:-1], "bytes with"),
    (lambda data: data[:20], "pickle"),
    (lambda data: data.replace(_SIZE, struct.pack("<q", -1), 1), "bytes with"),
    (lambda data: data.replace(_SIZE, b"\xff" * 7 + b"\x0f", 1), "bytes with"),
  ],
)
def test_a_wrong_legacy_file_is_refused(tmp_path, change, message):
  data = (DATA / "legacy.bin").read_bytes()
  assert _SIZE in data
  (tmp_path / "x.bin").write_bytes(change(data))
  with damage.little_memory(), pytest.raises(InputError, match=message):
    torch_bin.read_tensors(tmp_path / "x.bin")


def test_a_legacy_file_without_its_storages_is_refused(tmp_path):
  data = (DATA / "legacy.bin").read_bytes()
  start = data.index(b".", data.index(b"type_sizes")) + 1
  root = b"\x80\x02}" + _text("a") + _rebuild() + b"s."
  (tmp_path / "x.bin").write_bytes(data[:start] + root + b"\x80\x02].")
  with pytest.raises(InputError, match=r"with 0 storages, wanted .* with 1"):
    torch_bin.read_tensors(tmp_path / "x.bin")


_SIZE = struct.pack("<q", 24)  # elements of the largest storage
