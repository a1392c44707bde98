"""Safetensors: what is written is read, also by the library; lies are not."""

import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as library

from realm_jax.config import InputError
from realm_jax.formats import safetensors
from tests.formats import damage


def _tensors() -> dict[str, np.ndarray]:
  x = np.arange(12, dtype=np.float32).reshape(3, 4)
  return {
    "transposed": x.T,
    "every_other": x[::2, 1::2],
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 5), np.int64),
    "big_endian": np.arange(3, dtype=">i4"),
    "half": x[0].astype(np.float16),
    "bfloat16": x[1].astype(ml_dtypes.bfloat16),
    "bool": np.array([True, False]),
    "bytes": np.arange(5, dtype=np.uint8),
  }


def _check_equal(found, expected):
  assert found.keys() == expected.keys()
  for name, x in expected.items():
    assert found[name].shape == x.shape, name
    assert found[name].dtype == x.dtype.newbyteorder("="), name
    np.testing.assert_array_equal(found[name], x, name)


def test_what_is_written_is_read(tmp_path):
  path = tmp_path / "model.safetensors"
  safetensors.write_tensors(path, _tensors())
  _check_equal(safetensors.read_tensors(path), _tensors())
  assert [p.name for p in tmp_path.iterdir()] == [path.name]
  plain = {k: x for k, x in _tensors().items() if k != "bfloat16"}
  safetensors.write_tensors(path, plain)
  _check_equal(library.load_file(path), plain)


def test_what_the_library_wrote_is_read(tmp_path):
  library.save_file({"a": np.ones((2, 3))}, tmp_path / "x.safetensors")
  read = safetensors.read_tensors(tmp_path / "x.safetensors")
  _check_equal(read, {"a": np.ones((2, 3))})


def test_reading_maps_the_file(tmp_path):
  path = tmp_path / "model.safetensors"
  safetensors.write_tensors(path, {"x": np.zeros(1 << 23, np.float16)})
  with damage.little_memory():
    x = safetensors.read_tensors(path)["x"]
    assert x[-1] == 0 and not x.flags.writeable


def test_upcast_makes_float32_of_halves_only(tmp_path):
  path = tmp_path / "model.safetensors"
  safetensors.write_tensors(path, _tensors())
  read = safetensors.read_tensors(path, upcast=True)
  expected = _tensors()
  for name in ("half", "bfloat16"):
    expected[name] = expected[name].astype(np.float32)
  _check_equal(read, expected)


def test_shards_are_read_like_one_file(tmp_path):
  path = tmp_path / "model.safetensors"
  tensors = _tensors()
  safetensors.write_tensors(path, tensors)
  safetensors.write_tensors(path, tensors, shard_bytes=40)
  names = {p.name for p in tmp_path.iterdir()}
  index = tmp_path / "model.safetensors.index.json"
  assert path.name not in names  # or the reference would read the old
  assert index.name in names and "model-00001-of-00003.safetensors" in names
  _check_equal(safetensors.read_tensors(index), tensors)
  total = json.loads(index.read_text())["metadata"]["total_size"]
  assert total == sum(x.nbytes for x in tensors.values())
  safetensors.write_tensors(path, tensors, shard_bytes=total)
  assert not index.exists()
  _check_equal(safetensors.read_tensors(path), tensors)


def test_a_failed_write_leaves_the_old(tmp_path, monkeypatch):
  path = tmp_path / "model.safetensors"
  safetensors.write_tensors(path, {"a": np.ones(2)})

  def fail(*_, **__):
    raise safetensors.SafetensorError("I/O error: No space left on device")

  monkeypatch.setattr(safetensors, "save_file", fail)
  with pytest.raises(InputError, match=r"model.safetensors: cannot be wri.*No"):
    safetensors.write_tensors(path, {"a": np.zeros(2)})
  _check_equal(safetensors.read_tensors(path), {"a": np.ones(2)})
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
  "tensors, shard_bytes, message",
  [
    ({"a": np.array(["x"])}, None, "'a' of dtype <U1"),
    ({"a": np.ones(1, np.complex64)}, None, "complex64"),
    ({"__metadata__": np.ones(1)}, None, "__metadata__"),
    ({"a": np.ones(1)}, 0, "shard_bytes=0"),
  ],
)
def test_what_cannot_be_written_is_refused(
  tmp_path, tensors, shard_bytes, message
):
  with pytest.raises(InputError, match=message):
    safetensors.write_tensors(tmp_path / "x", tensors, shard_bytes)
  assert list(tmp_path.iterdir()) == []


def _file(header: str | bytes, body: bytes = b"", length: int | None = None):
  header = header.encode() if isinstance(header, str) else header
  length = len(header) if length is None else length
  return length.to_bytes(8, "little") + header + body


def _entry(name="a", dtype="F32", shape="[2]", offsets="[0,8]"):
  return (
    f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'
  )


@pytest.mark.parametrize(
  "data",
  [
    b"",
    b"\x08",
    _file("{}", length=1 << 60),
    _file("{}", length=3),
    _file("{" + _entry()[:-1], bytes(8)),
    _file(b'{"\xff": 1}'),
    _file("[" * 100_000),
    _file("[]"),
    _file('{"a": 1}'),
    _file('{"a": {}}'),
    _file("{" + _entry() + "," + _entry() + "}", bytes(8)),  # twice
    _file("{" + _entry() + "," + _entry("b") + "}", bytes(8)),  # overlap
    _file(
      "{" + _entry() + "," + _entry("b", offsets="[4,12]") + "}", bytes(12)
    ),
    _file("{" + _entry() + "}", bytes(7)),
    _file("{" + _entry() + "}", bytes(9)),
    _file("{" + _entry(offsets="[4,12]") + "}", bytes(12)),  # a hole
    _file("{" + _entry(offsets="[8,0]") + "}", bytes(8)),
    _file("{" + _entry(offsets="[0,-8]") + "}", bytes(8)),
    _file("{" + _entry(offsets=f"[0,{2**63}]") + "}", bytes(8)),
    _file("{" + _entry(shape="[3]") + "}", bytes(8)),
    _file("{" + _entry(shape="[-2]") + "}", bytes(8)),
    _file("{" + _entry(shape="[2.0]") + "}", bytes(8)),
    _file("{" + _entry(shape=f"[{2**62},4]") + "}", bytes(8)),
    _file("{" + _entry(shape=f"[{2**63},0]", offsets="[0,0]") + "}"),
    _file("{" + _entry(shape=f"[{2**62},0,9]", offsets="[0,0]") + "}"),
    _file("{" + _entry(dtype="F128") + "}", bytes(8)),
    _file("{" + _entry(dtype="F8_E4M3", shape="[8]") + "}", bytes(8)),
    _file("{" + _entry(dtype="BOOL", shape="[8]") + "}", b"\2" * 8),
    _file("{" + _entry() + ',"__metadata__":{"a":1}}', bytes(8)),
  ],
)
def test_lies_are_refused(tmp_path, data):
  path = tmp_path / "model.safetensors"
  path.write_bytes(data)
  with damage.little_memory(), pytest.raises(InputError, match=r"model\.safet"):
    safetensors.read_tensors(path)


def test_no_file_is_refused(tmp_path):
  with pytest.raises(InputError, match="no such file"):
    safetensors.read_tensors(tmp_path / "model.safetensors")
  with pytest.raises(InputError, match="cannot be read"):
    safetensors.read_tensors(tmp_path)


def _payload(data: bytes) -> bytes:
  return data[8 + int.from_bytes(data[:8], "little") :]


def test_damage_is_refused_or_stays_where_it_is(tmp_path):
  """The format has no checksum: a changed byte of the payload is read as it
  is; one in the header may still make a valid header, which then differs in
  the name or dtype of one tensor, and in nothing else."""
  path = tmp_path / "model.safetensors"
  safetensors.write_tensors(path, _tensors())
  whole = path.read_bytes()
  original = {k: x.copy() for k, x in safetensors.read_tensors(path).items()}
  read = damage.read_damaged(path, 1, safetensors.read_tensors)
  num_read = 0
  for found, data, position in read:
    num_read += 1
    assert position >= 0  # a file that was cut off is never read
    payload = b"".join(x.tobytes() for x in found.values())
    assert payload == _payload(data)  # byte for byte
    described = {(k, x.dtype, x.shape) for k, x in found.items()}
    described ^= {(k, x.dtype, x.shape) for k, x in original.items()}
    in_header = position < len(whole) - len(_payload(whole))
    assert len(described) in ((0, 2) if in_header else (0,))
    if not in_header:
      changed = [k for k, x in found.items() if _differs(x, original[k])]
      assert len(changed) == 1
  assert num_read > 5


def _differs(x: np.ndarray, y: np.ndarray) -> bool:
  return x.tobytes() != y.tobytes()


def _index(directory: pathlib.Path) -> pathlib.Path:
  path = directory / "model.safetensors"
  safetensors.write_tensors(
    path, {"a": np.ones(2), "b": np.zeros(3), "c": np.ones(4)}, 40
  )
  return directory / "model.safetensors.index.json"


@pytest.mark.parametrize(
  "old, new, message",
  [
    ('"a": "model-00001-of-00002.safetensors",', "", "has beside.*'a'"),
    ('"a":', '"d":', "'[ad]'"),
    ('"a":', '"d": "model-00001-of-00002.safetensors", "a":', "lacks 'd'"),
    ('"a":', '"b":', "'b' is there twice"),
    ("model-00002-of-00002", "model-00003-of-00002", "not beside it"),
    ("model-00002-of-00002", "../model", "file beside the index"),
    ('"model-00002-of-00002.safetensors"', '".."', "not beside it"),
    ('"model-00002-of-00002.safetensors"', '"\\u0000"', "not beside it"),
    ('"model-00002-of-00002.safetensors"', f'"{"x" * 999}"', "not beside it"),
    ('"model-00002-of-00002.safetensors"', "2", "name of a file"),
    ("weight_map", "weights", "lacks"),
    ("{", "[", "not JSON"),
    ("72", "9" * 5000, "not JSON"),
  ],
)
def test_a_wrong_index_is_refused(tmp_path, old, new, message):
  index = _index(tmp_path)
  text = index.read_text()
  assert old in text
  index.write_text(text.replace(old, new, 1))
  with pytest.raises(InputError, match=message):
    safetensors.read_tensors(index)


@pytest.mark.parametrize("text", ["", "[]", "{}", "1", '{"weight_map": {}}'])
def test_an_index_of_nothing_is_refused(tmp_path, text):
  index = tmp_path / "model.safetensors.index.json"
  index.write_text(text)
  with pytest.raises(InputError, match=r"index.json"):
    safetensors.read_tensors(index)


def test_a_damaged_index_is_refused_or_means_the_same(tmp_path):
  index = _index(tmp_path)
  expected = safetensors.read_tensors(index)
  for found, _, _ in damage.read_damaged(index, 2, safetensors.read_tensors):
    _check_equal(found, expected)  # the total size, or white space
