"""The machine for plain pickles: what it takes, and what it says of the rest."""

import builtins
import pickle

import pytest

from realm_jax.config import InputError
from realm_jax.formats import plain_pickle


def _read(body: bytes, **options):
  names = {"a.function": lambda args: [*args], "a.constant": 1}
  data = memoryview(b"\x80\x04" + body)
  return plain_pickle.read_pickle(data, "here", names, **options)[0]


@pytest.mark.parametrize(
  "body, message",
  [
    (b"ca\nfunction\nca\nconstant\nR.", "arguments that are a a.constant"),
    (b"ca\nconstant\n)R.", "calls a a.constant, which is refused"),
    (b"K\1)R.", "calls a int, which is refused"),
    (b"ca\nother\n.", "wants 'a.other', which is refused"),
    (b"K\1K\2\x93.", "wants '\\?', which is refused"),
    (b"(ca\nfunction\no.", r"instruction b'o' is not of plain data"),
    (b"Nq\0Nq\0.", "memory is out of order"),
    (b"h\0.", "recalls what it did not keep"),
    (b"](0.", r"instruction b'0'"),
    (b"](a.", "takes a value that is not there"),
    (b"](K\1a.", "takes a value that is not there"),
    (b".", "ends before its value is complete"),
    (b"(N.", "ends before its value is complete"),
    (b"N", "ends within 1 bytes"),
    (b"e.", "ends a group that it did not begin"),
    (b"K\1K\2a.", "fills a int like a list"),
    (b"](K\1K\2u.", "fills a list like a dict"),
    (b"}(K\1u.", "a key without a value"),
    (b"}K\1K\2s.", "a key that is a int"),
    (b"}}b.", "sets the state of a dict"),
    (b"NQ.", "data from elsewhere"),
    (b"ca", "a name without an end"),
    (b"X\1\0\0\0\xff.", "a text is not UTF-8"),
    (b"\x95\3\0\0\0\0\0\0\0N.", "a frame is longer than the file"),
    (b"\x80\4N.", r"instruction b'\\x80'"),
  ],
)
def test_what_is_not_plain_is_refused_by_name(body, message):
  with pytest.raises(InputError, match=f"here: byte .*{message}"):
    _read(body)


def test_names_states_and_persistent_ids_mean_what_the_caller_says():
  assert _read(b"ca\nfunction\nK\1K\2\x86R.") == [1, 2]
  assert _read(b"K\5Q.", persistent=lambda x: x + 1) == 6
  assert _read(b"]}b.", build=lambda x, state: x.append(state)) == [{}]


def test_plain_data_is_read():
  value = {"a": [1, -2, 300, 70_000, -(2**40), 2.5], "b": (True, False, None)}
  value |= {"c": ["ü", b"\xff" * 300, "x" * 300], "d": {"e": ((), (1,), [])}}
  value["f"] = (value["a"], value["b"], "x", 4)  # kept and recalled
  for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
    names = {"_codecs.encode": lambda args: args[0].encode("latin1")}
    pickled = pickle.dumps(value, protocol)
    read, end = plain_pickle.read_pickle(
      memoryview(b"\0" + pickled + b"\0"), "here", names, start=1
    )
    assert read == value
    assert end == len(pickled) + 1


def test_names_stand_for_what_the_caller_says():
  pickled = pickle.dumps(builtins.len, 4)
  read = plain_pickle.read_pickle(
    memoryview(pickled), "here", {"builtins.len": 5}
  )
  assert read[0] == plain_pickle.Global("builtins.len", 5)
