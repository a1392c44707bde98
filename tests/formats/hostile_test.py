"""Pickles that would run something: refused, wherever they are hidden.

The pickles are real ones; each would make a marker file, and the first test
shows that they do so when they are unpickled.
"""

import collections
import copyreg
import functools
import os
import pathlib
import pickle
import subprocess
import zipfile

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.formats import block_records, torch_bin
from tests.formats import damage

TORCH_DATA = pathlib.Path(__file__).parent.parent / "testdata" / "torch_bin"


class _Call:
  """Unpickles as function(*args)."""

  def __init__(self, function, *args):
    self._reduced = (function, args)

  def __reduce__(self):
    return self._reduced

  def __call__(self):
    """A pickle's function must look like one."""


class _Touch:
  """Touches a file when its state is set."""

  def __setstate__(self, path):
    pathlib.Path(path).touch()

  def __reduce__(self):
    return copyreg.__newobj__, (_Touch,), self.path


class _TouchNew:
  """Touches a file when it is made."""

  def __new__(cls, path):
    pathlib.Path(path).touch()
    return super().__new__(cls)


def _touch_on_state(path: str) -> _Touch:
  touch = _Touch()
  touch.path = path
  return touch


OBJECTS = {
  "system": lambda path: _Call(os.system, f"touch {path}"),
  "subprocess": lambda path: _Call(subprocess.call, ["touch", path]),
  "eval": lambda path: _Call(eval, f"__import__('os').mknod({path!r})"),
  "exec": lambda path: _Call(exec, f"import os; os.mknod({path!r})"),
  "open": lambda path: _Call(open, path, "w"),
  "getattr": lambda path: _Call(_Call(getattr, pathlib.Path(path), "touch")),
  "partial": lambda path: _Call(functools.partial(os.mknod, path)),
  "path": lambda path: _Call(pathlib.Path.touch, pathlib.Path(path)),
  "state": _touch_on_state,
  "nested": lambda path: _Call(
    dict, [("a", [1, (2, {"b": _Call(os.mknod, path)})])]
  ),
  "beside a tensor": lambda path: {"a": 1, "b": _Call(os.mknod, path)},
  "as an argument": lambda path: _Call(
    collections.OrderedDict, [("a", _Call(os.mknod, path))]
  ),
}


def _pickles(marker: pathlib.Path) -> dict[str, bytes]:
  """Name -> pickle, of all protocols and by hand."""
  path = str(marker)
  pickles = {
    f"{name}, protocol {protocol}": pickle.dumps(make(path), protocol)
    for name, make in OBJECTS.items()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
  }
  short = path.encode()
  text = b"X" + len(short).to_bytes(4, "little") + short
  touch_new = f"c{__name__}\n_TouchNew\n".encode()
  system = b"cposix\nsystem\n"
  touch = b"X" + (len(short) + 6).to_bytes(4, "little") + b"touch " + short
  by_hand = {
    "INST": b"(" + touch + b"iposix\nsystem\n",
    "OBJ": b"("
    + b"cpathlib\nPath\n"
    + text
    + b"o0("
    + touch
    + b"iposix\nsystem\n",
    "NEWOBJ": touch_new + text + b"\x85\x81",
    "NEWOBJ_EX": touch_new + text + b"\x85}\x92",
    "STACK_GLOBAL": b"\x8c\x05posix\x94\x8c\x06system\x94\x93"
    + touch
    + b"\x85R",
    "STACK_GLOBAL of memo": (
      b"\x8c\x05posix\x94\x8c\x06system\x94h\x00h\x01\x93" + touch + b"\x85R"
    ),
    "an allowed name's attribute": (
      b"\x8c\x08builtins\x8c\x07getattr\x93ccollections\nOrderedDict\n"
      b"\x8c\x08__init__\x86R0" + system + touch + b"\x85R"
    ),
    "memo overwritten": b"K\x01q\x00"
    + system
    + b"q\x00h\x00"
    + touch
    + b"\x85R",
    "after a value": b"}0" + system + touch + b"\x85R",
  }
  return pickles | {k: b"\x80\x04" + v + b"." for k, v in by_hand.items()}


def _hide(directory: pathlib.Path, pickled: bytes) -> list[pathlib.Path]:
  """Files of each kind with the pickle where theirs is."""
  paths = [directory / n for n in ("zip.bin", "legacy.bin", "raw.bin", "x.npy")]
  with zipfile.ZipFile(paths[0], "w") as file:
    file.writestr("x/data.pkl", pickled)
  legacy = (TORCH_DATA / "legacy.bin").read_bytes()
  start = legacy.index(b".", legacy.index(b"type_sizes")) + 1
  paths[1].write_bytes(legacy[:start] + pickled)
  paths[2].write_bytes(pickled)
  header = {"descr": "|O", "fortran_order": False, "shape": (1,)}
  with paths[3].open("wb") as f:
    np.lib.format.write_array_header_1_0(f, header)
    f.write(pickled)
  return paths


def _read(path: pathlib.Path):
  if path.suffix == ".npy":
    return block_records.read_block_records(path)
  return torch_bin.read_tensors(path)


def test_the_pickles_are_dangerous(tmp_path):
  marker = tmp_path / "marker"
  for name, pickled in _pickles(marker).items():
    pickle.loads(pickled)
    assert marker.exists(), name
    marker.unlink()


def test_they_are_refused_and_not_run(tmp_path):
  marker = tmp_path / "marker"
  for name, pickled in _pickles(marker).items():
    for path in _hide(tmp_path, pickled):
      with pytest.raises(InputError) as e:
        _read(path)
      assert not marker.exists(), (name, path)
      if path.name != "raw.bin":
        assert "nothing was run" in str(e.value), (name, path)


@pytest.mark.parametrize(
  "name, wanted",
  [
    ("system", "posix.system"),
    ("subprocess", "subprocess.call"),
    ("eval", "builtins.eval"),
    ("INST", "posix.system"),
    ("STACK_GLOBAL of memo", "posix.system"),
    ("NEWOBJ", f"{__name__}._TouchNew"),
  ],
)
def test_the_message_names_what_was_refused(tmp_path, name, wanted):
  pickles = _pickles(tmp_path / "marker")
  pickled = pickles.get(name) or pickles[f"{name}, protocol 4"]
  path = _hide(tmp_path, pickled)[0]
  message = rf"zip.bin: data.pkl: byte \d+: .*'{wanted}', which is refused"
  with pytest.raises(InputError, match=message):
    _read(path)


def test_extensions_are_refused(tmp_path):
  copyreg.add_extension("posix", "system", 77)
  try:
    pickled = pickle.dumps(_Call(os.system, "touch x"), 2)
  finally:
    copyreg.remove_extension("posix", "system", 77)
  assert b"\x82\x4d" in pickled  # EXT1 77
  for path in _hide(tmp_path, pickled)[:2]:
    with pytest.raises(InputError, match=r"instruction b'\\x82' is not of"):
      _read(path)


_DEPTH = 30_000


@pytest.mark.parametrize(
  "pickled",
  [
    b"",
    b"\x80",
    b"\x80\x01}.",
    b"\x80\x06}.",
    b"\x80\x04",
    b"\x80\x04.",
    b"\x80\x04NN.",
    b"\x80\x04(.",
    b"\x80\x04(N.",
    b"\x80\x04e.",
    b"\x80\x04(e.",
    b"\x80\x04N(a.",
    b"\x80\x04](0.",
    b"\x80\x04](K\x01a.",  # puts beyond the mark
    b"\x80\x04}(K\x01u.",
    b"\x80\x04}K\x01K\x02s.",
    b"\x80\x04}))s.",
    b"\x80\x04h\x00.",
    b"\x80\x04j\xff\xff\xff\xff.",
    b"\x80\x04Nq\x01.",
    b"\x80\x04Nr\xff\xff\xff\xff.",
    b"\x80\x04C\x09abc.",
    b"\x80\x04B\xff\xff\xff\xffabc.",
    b"\x80\x04X\xff\xff\xff\xffabc.",
    b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b"abc.",
    b"\x80\x04\x95" + (1 << 60).to_bytes(8, "little") + b"}.",
    b"\x80\x04X\x01\x00\x00\x00\xff.",
    b"\x80\x04X\x03\x00\x00\x00\xed\xa0\x80.",  # half a surrogate pair
    b"\x80\x04c" + b"a" * 300 + b"\nb\n.",
    b"\x80\x04ca",
    b"\x80\x04K\x01K\x02\x93.",
    b"\x80\x04K\x01)R.",
    b"\x80\x04}Nb.",
    b"\x80\x04NQ.",
    b"\x80\x04]\x94h\x00a.",  # a list in itself
    b"\x80\x04I99\n.",
    b"\x80\x04\x80\x04}.",
    b"\xff" * 9,
  ],
  ids=lambda pickled: str(pickled[:12]),
)
def test_a_broken_pickle_is_refused(tmp_path, pickled):
  for path in _hide(tmp_path, pickled):
    with damage.little_memory(), pytest.raises(InputError):
      _read(path)


@pytest.mark.parametrize(
  "pickled",
  [
    b"(" * _DEPTH,
    b"]" * _DEPTH,
    b")\x85" * _DEPTH + b".",
    b"]\x94" * _DEPTH + b".",
    b")" + b"\x85" * _DEPTH + b".",
    # As a key, to be hashed, which ends in a dead Python.
    b"})" + b"\x85" * 300_000 + b"Ns.",
    b"]\x94" + b"(h\x00h\x00t\x94" * 2 + b".",
  ],
  ids=lambda pickled: str(pickled[:8]),
)
def test_a_deep_pickle_is_refused(tmp_path, pickled):
  for path in _hide(tmp_path, b"\x80\x04" + pickled):
    with pytest.raises(InputError):
      _read(path)


def _each_squared(depth: int) -> bytes:
  """Lists of two of the list before: 2**depth leaves."""
  pickled = b"\x80\x04]\x94"
  for i in range(depth):
    pickled += b"](" + 2 * (b"j" + i.to_bytes(4, "little")) + b"e\x94"
  return pickled + b"."


def test_the_billionth_laugh_is_not_laughed(tmp_path):
  for path in _hide(tmp_path, _each_squared(200)):
    with damage.little_memory(), pytest.raises(InputError):
      _read(path)


def test_one_text_encoded_often_is_refused(tmp_path):
  text = b"X" + (1 << 16).to_bytes(4, "little") + b"a" * (1 << 16) + b"\x94"
  encode = b"c_codecs\nencode\n\x94X\6\0\0\0latin1\x94"
  again = b"h\x01h\x00h\x02\x86R"
  pickled = b"\x80\x04" + text + encode + again * 1000 + b"."
  path = _hide(tmp_path, pickled)[3]
  with damage.little_memory(), pytest.raises(InputError, match="encoded bytes"):
    _read(path)
