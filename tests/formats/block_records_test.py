"""Block records: every form reads as the same bytes; broken ones do not."""

import gzip
import itertools
import json
import os
import pathlib
import pickle
import re
import subprocess
import warnings

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.formats import block_records, npy_objects, safetensors
from tests.formats import damage

DATA = pathlib.Path(__file__).parent.parent / "testdata"
TEXTS = ["Delft is a city.", "", "Größe: 5 µm", "x" * 300]
RECORDS = [t.encode() for t in TEXTS]


def _read(path: pathlib.Path) -> list[bytes]:
  records = block_records.read_block_records(path)
  assert records.dtype == object and records.shape == (len(records),)
  return records.tolist()


def _save(path: pathlib.Path, array: np.ndarray, protocol: int) -> None:
  header = {"descr": "|O", "fortran_order": False, "shape": array.shape}
  with path.open("wb") as f:
    np.lib.format.write_array_header_1_0(f, header)
    pickle.dump(array, f, protocol)


def test_what_the_reference_saved_is_read():
  path = DATA / "torch_bin" / "block_records.npy"
  assert b"numpy.core.multiarray" in path.read_bytes()  # NumPy 1
  assert _read(path) == RECORDS


def test_what_numpy_saves_is_read(tmp_path):
  np.save(tmp_path / "x.npy", np.array(RECORDS, object), allow_pickle=True)
  assert _read(tmp_path / "x.npy") == RECORDS


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_every_protocol_is_read(tmp_path, protocol, core):
  array = np.array([*RECORDS, "text", np.bytes_(b"a"), np.str_("ü µ")], object)
  array[2] = array[0]  # one object twice
  path = tmp_path / "x.npy"
  _save(path, array, protocol)
  if protocol < 4:  # where a name is a line, and its length nowhere
    named = re.sub(rb"cnumpy\._?core", b"c" + core.encode(), path.read_bytes())
    path.write_bytes(named)
  expected = [x.encode() if isinstance(x, str) else bytes(x) for x in array]
  assert _read(path) == expected


@pytest.mark.parametrize("num", [1, 999, 1000, 1001, 2500])
def test_what_is_written_is_read_also_by_numpy(tmp_path, num):
  records = [b"block %d" % i for i in range(num)]
  path = tmp_path / "block_records.npy"
  block_records.write_block_records(path, records)
  assert _read(path) == records
  with warnings.catch_warnings():
    warnings.simplefilter("error")  # as of a name that NumPy will drop
    assert np.load(path, allow_pickle=True).tolist() == records
  assert list(tmp_path.iterdir()) == [path]


def test_no_records_are_written_for_numpy(tmp_path):
  block_records.write_block_records(tmp_path / "x.npy", [])
  assert np.load(tmp_path / "x.npy", allow_pickle=True).shape == (0,)


@pytest.mark.skipif(
  "REALM_ORACLE" not in os.environ,
  reason="REALM_ORACLE: a Python with transformers 4.34.0 and torch",
)
def test_the_reference_reads_what_is_written(tmp_path):
  block_records.write_block_records(tmp_path / "block_records.npy", RECORDS)
  safetensors.write_tensors(
    tmp_path / "model.safetensors", {"a.weight": np.ones((2, 3), np.float32)}
  )
  code = (
    "import json, sys, numpy, transformers\n"
    "from transformers.modeling_utils import load_state_dict\n"
    "assert transformers.__version__ == '4.34.0'\n"
    "records = numpy.load('block_records.npy', allow_pickle=True)\n"
    "picked = numpy.take(records, indices=numpy.arange(4), axis=0)\n"
    "state = load_state_dict('model.safetensors')\n"
    "print(json.dumps([[r.decode() for r in picked], str(records.dtype),"
    " {k: x.tolist() for k, x in state.items()}]))\n"
  )
  done = subprocess.run(
    [os.environ["REALM_ORACLE"], "-c", code],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": ""},
    capture_output=True,
    check=True,
  )
  read = json.loads(done.stdout.splitlines()[-1])
  assert read == [TEXTS, "object", {"a.weight": [[1.0] * 3] * 2}]


@pytest.mark.parametrize("dtype", ["S", "U", ">U300"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_fixed_width_is_read(tmp_path, dtype, version):
  array = np.array(RECORDS if dtype == "S" else TEXTS, dtype)
  with (tmp_path / "x.npy").open("wb") as f:
    np.lib.format.write_array(f, array, version)
  assert _read(tmp_path / "x.npy") == RECORDS


def _compress(path: pathlib.Path) -> pathlib.Path:
  zipped = path.with_name(path.name + ".gz")
  zipped.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
  return zipped


@pytest.mark.parametrize(
  "line",
  [
    json.dumps,
    lambda text: json.dumps(text, ensure_ascii=False),
    lambda text: json.dumps({"text": text}),
    lambda text: json.dumps({"id": "1", "title": "Delft", "text": text}),
  ],
)
def test_jsonl_is_read(tmp_path, line):
  path = tmp_path / "blocks.jsonl"
  path.write_text("\n\n".join(map(line, TEXTS)) + " \n", "utf-8")
  assert _read(path) == RECORDS
  assert _read(_compress(path)) == RECORDS


def test_tfrecords_are_read(tmp_path):
  source = DATA / "tf_checkpoint" / "blocks.tfr"
  expected = source.with_suffix(".txt").read_text("utf-8").split("\n")
  for name in ("x.tfr", "x.tfrecord", "x.tfrecords"):
    (tmp_path / name).write_bytes(source.read_bytes())
    assert [r.decode() for r in _read(tmp_path / name)] == expected
    assert _read(_compress(tmp_path / name)) == _read(source)


@pytest.mark.parametrize(
  "name, data, message",
  [
    ("x.txt", b"a", r"block records are .npy, .jsonl\(.gz\)"),
    ("x.npy.gz", b"a", r"block records are"),
    ("x.jsonl", b"", "no records"),
    ("x.jsonl", b"\n \n", "no records"),
    ("x.jsonl", b'"a"\n1\n', r"x.jsonl:2: wanted a text"),
    ("x.jsonl", b'{"title": "a"}\n', r"x.jsonl:1: wanted a text"),
    ("x.jsonl", b'{"text": 1}\n', r"x.jsonl:1: wanted a text"),
    ("x.jsonl", b'{"text": "a", "text": "b"}\n', "'text' is there twice"),
    ("x.jsonl", b'"a"\n"b', r"x.jsonl:2: not JSON"),
    ("x.jsonl", b'"a\xff"\n', r"x.jsonl:1: not JSON"),
    ("x.jsonl", b'"\\ud800"\n', "record 0 is not UTF-8"),
    ("x.jsonl", b"[" * 100_000, r"x.jsonl:1: JSON nested too deeply"),
    ("x.jsonl.gz", b'"a"', "cannot be read"),
    (
      "x.jsonl.gz",
      gzip.compress(b'"a"\n' * 99, mtime=0)[:-9],
      "cannot be read",
    ),
    ("x.tfr", b"", "no records"),
  ],
)
def test_a_wrong_file_is_refused(tmp_path, name, data, message):
  (tmp_path / name).write_bytes(data)
  with pytest.raises(InputError, match=message):
    block_records.read_block_records(tmp_path / name)


@pytest.mark.parametrize("suffix", ["npy", "jsonl", "jsonl.gz", "tfr"])
def test_no_file_is_refused(tmp_path, suffix):
  with pytest.raises(InputError, match="no such file"):
    block_records.read_block_records(tmp_path / f"x.{suffix}")


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(block_records, "_MAX_LINE", 1 << 16)
  path = tmp_path / "x.jsonl.gz"
  path.write_bytes(gzip.compress(b" " * (1 << 26)))
  with damage.little_memory(), pytest.raises(InputError, match="a line of"):
    block_records.read_block_records(path)


def _npy(header: str, body: bytes = b"", version: bytes = b"\1\0") -> bytes:
  size = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
  return b"\x93NUMPY" + version + size + header.encode() + body


def _header(descr="|S2", shape="(2,)", order="False") -> str:
  descr = descr if descr.startswith("[") else f"'{descr}'"
  return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
  "data",
  [
    b"",
    b"\x93NUMPY",
    b"PK\3\4" + bytes(99),  # .npz
    _npy(_header(), b"abc"),
    _npy(_header(), b"abcde"),
    _npy(_header(shape="(1,2)"), b"abcd"),
    _npy(_header(shape="()"), b"ab"),
    _npy(_header(shape="(-2,)"), b"abcd"),
    _npy(_header(shape=f"({2**60},)"), b"abcd"),
    _npy(_header(shape=f"({2**200},)"), b"abcd"),
    _npy(_header(shape="(2.0,)"), b"abcd"),
    _npy(_header(descr="|S0"), b""),
    _npy(_header(descr="<f4"), bytes(8)),
    _npy(_header(descr="|S" + "9" * 30), bytes(8)),
    _npy(_header(descr="hello"), bytes(8)),
    _npy(_header(descr="[('a', '|S1'), ('b', '|S1')]"), b"abcd"),
    _npy(_header(descr="[('a', '|O')]"), b"abcd"),
    _npy(_header(descr="<U1"), b"\xff" * 8),
    _npy("__import__('os').mknod('marker')"),
    _npy("[" * 5000),
    _npy("(" * 90 + ")" * 90),
    _npy("-" * 9000 + "1"),
    _npy(_header() + " " * 20_000, b"abcd"),
    _npy(_header(), b"abcd", version=b"\3\0"),
    _npy(_header(), b"abcd", version=b"\x09\0"),
    _npy("{'descr': '|S2'}", b"abcd"),
    _npy("{'descr': '|S2', 'descr': '|S2'}\0", b"abcd"),
    b"\x93NUMPY\2\0" + b"\xff" * 4 + b"{}",
  ],
  ids=lambda data: str(data[10:40]),
)
def test_a_lying_npy_is_refused(tmp_path, data):
  (tmp_path / "x.npy").write_bytes(data)
  with damage.little_memory(), pytest.raises(InputError, match=r"x\.npy"):
    block_records.read_block_records(tmp_path / "x.npy")


@pytest.mark.parametrize(
  "array, message",
  [
    (np.array([b"a", 1], object), "a int in the pickle"),
    (np.array([b"a", None], object), "a NoneType in the pickle"),
    (np.array([b"a", [b"a"]], object), "a list in the pickle"),
    (np.array([[b"a"], [b"b"]], object), r"wanted an array \[N\] of texts"),
    (np.array([b"a", b"\xff"], object), "record 1 is not UTF-8"),
    (np.array([np.float32(1)], object), "a scalar in the pickle"),
    (np.array([b"a", np.zeros(1)], object), "in the pickle"),
  ],
)
def test_other_objects_are_refused(tmp_path, array, message):
  _save(tmp_path / "x.npy", array, 4)
  with pytest.raises(InputError, match=message):
    block_records.read_block_records(tmp_path / "x.npy")


def _written(tmp_path: pathlib.Path, records=(b"abc", b"d")) -> bytes:
  npy_objects.write_bytes(tmp_path / "x.npy", records)
  return (tmp_path / "x.npy").read_bytes()


@pytest.mark.parametrize(
  "old, new",
  [
    (b"(2,)", b"(3,)"),
    (b"J\2\0\0\0", b"J\3\0\0\0"),
    (b"(K\1J", b"(K\2J"),
    (b"_reconstruct", b"_reconstrucs"),
    (b"O8", b"S8"),
    (b"\1\0\0\0|", b"\1\0\0\0!"),
    (b"C\1b", b"C\1c"),
    (b"b\x89]", b"b\x89)"),
    (b"b\x89]", b"b]]"),
    (b"etb.", b"etb.."),
    (b"etb.", b"et."),
    (b"etb.", b"etb\x89\x89b."),
    (b"etb.", b"etbb."),
    (b"R(K\1", b"0(K\1"),
  ],
)
def test_a_pickle_that_lies_is_refused(tmp_path, old, new):
  data = _written(tmp_path)
  assert data.count(old) == 1
  (tmp_path / "x.npy").write_bytes(data.replace(old, new))
  with pytest.raises(InputError, match=r"x\.npy"):
    block_records.read_block_records(tmp_path / "x.npy")


_LONG = [f"Block {i} of Größe {i * i} µm.".encode() for i in range(12)]


def _write_numpy(path):
  np.save(path, np.array(_LONG, object), allow_pickle=True)


def _write_fixed(path):
  np.save(path, np.array(_LONG))


def _write_texts(path):
  np.save(path, np.array([r.decode() for r in _LONG]))


def _write_jsonl(path):
  lines = [json.dumps({"text": r.decode()}, ensure_ascii=False) for r in _LONG]
  path.write_text("\n".join(lines) + "\n", "utf-8")


@pytest.mark.parametrize(
  "name, write",
  [
    ("x.npy", lambda path: npy_objects.write_bytes(path, _LONG)),
    ("x.npy", _write_numpy),
    ("x.npy", _write_fixed),
    ("x.npy", _write_texts),
    ("x.jsonl", _write_jsonl),
  ],
)
def test_damage_is_refused_or_stays_in_one_text(tmp_path, name, write):
  """These formats have no checksum: a changed letter is read as it is, in its
  own record; whatever else is changed is refused. Only JSONL can be cut off
  without a word, between two lines."""
  path = tmp_path / name
  write(path)
  num_read = 0
  for found, _, position in damage.read_damaged(path, 5, _read):
    if position < 0:
      assert name == "x.jsonl" and found == _LONG[: len(found)]
      continue
    num_read += 1
    assert len(found) == len(_LONG)
    changed = [i for i, x in enumerate(found) if x != _LONG[i]]
    assert len(changed) <= 1
    if changed and name != "x.jsonl":  # where a backslash changes two letters
      assert _num_differing(found[changed[0]], _LONG[changed[0]]) == 1
  assert num_read > 20


def _num_differing(x: bytes, y: bytes) -> int:
  """In letters or in bytes; fixed width ends in zeros."""
  forms = [(x, y, 0), (x.decode(), y.decode(), "\0")]
  return min(
    sum(a != b for a, b in itertools.zip_longest(x, y, fillvalue=zero))
    for x, y, zero in forms
  )


@pytest.mark.parametrize("name", ["x.jsonl", "x.tfr"])
def test_a_damaged_gzip_is_refused_or_reads_the_same(tmp_path, name):
  """gzip has a checksum; its header has a date and flags that say nothing."""
  path = tmp_path / name
  if name == "x.jsonl":
    _write_jsonl(path)
  else:
    path.write_bytes((DATA / "tf_checkpoint" / "blocks.tfr").read_bytes())
  path, expected = _compress(path), _read(path)
  for found, _, position in damage.read_damaged(path, 6, _read):
    assert position in range(10)
    assert found == expected
