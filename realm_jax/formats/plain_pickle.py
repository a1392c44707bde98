"""Plain data out of pickles, without unpickling.

A pickle is a program for a small stack machine. This is such a machine with
the instructions for plain data only; a name of the outside world, such as
torch.FloatStorage, stands for what the caller says it does, and every other
name or instruction is refused when it is read. Nothing is imported, called or
set that the file names. Instructions: Python's Lib/pickletools.py.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from realm_jax.config import InputError


class Global(NamedTuple):
  """A name in a pickle and what it stands for: a function of the tuple of
  arguments, or any other value."""

  name: str
  value: Any


def read_pickle(
  data: memoryview,
  place: str,
  names: Mapping[str, Any],
  *,
  start: int = 0,
  persistent: Callable[[Any], Any] | None = None,
  build: Callable[[Any, Any], None] | None = None,
) -> tuple[Any, int]:
  """Reads one pickle of protocol 2 to 5.

  Args:
    data: the bytes of a file.
    place: what they are called in messages.
    names: "module.name" -> what it stands for.
    start: where in data the pickle begins.
    persistent: makes a value of a persistent id (what torch calls a storage).
    build: takes (object, state) where a pickle sets an object's state.

  Returns:
    (value, end): None, bool, int, float, str, bytes, tuple, list, dict,
    Global, and what `names` and `persistent` return; the first byte after it.

  Raises:
    InputError: the pickle is broken or wants something else.
  """
  machine = _Machine(data, place, names, start, persistent, build)
  return machine.run(), machine.pos


class _Machine:
  """The stack, the memo and the place in the file."""

  def __init__(self, data, place, names, start, persistent, build):
    self.pos = start
    self._data = data
    self._place = place
    self._names = names
    self._persistent = persistent
    self._build = build
    self._stack: list[Any] = []
    self._marks: list[int] = []  # heights of the stack
    self._memo: list[Any] = []

  def run(self) -> Any:
    if self.take(1) != b"\x80" or self.uint(1) not in range(2, 6):
      raise self.error("not a pickle of protocol 2 to 5")
    while (code := self.take(1)[0]) != _STOP:
      _INSTRUCTIONS.get(code, _Machine.refuse)(self)
    if len(self._stack) != 1 or self._marks:
      raise self.error("ends before its value is complete")
    return self._stack[0]

  def error(self, what: str) -> InputError:
    return InputError(
      f"{self._place}: byte {self.pos}: {what}; nothing was run. Get the file"
      " again, or in a format that holds data only"
    )

  def refuse(self) -> None:
    code = bytes(self._data[self.pos - 1 : self.pos])
    raise self.error(f"the pickle instruction {code} is not of plain data")

  # The bytes of an instruction.

  def take(self, size: int) -> memoryview:
    start, self.pos = self.pos, self.pos + size
    if self.pos > len(self._data):
      raise self.error(f"the pickle ends within {size} bytes it announces")
    return self._data[start : self.pos]

  def uint(self, width: int) -> int:
    return int.from_bytes(self.take(width), "little")

  def line(self) -> str:
    ahead = bytes(self._data[self.pos : self.pos + _MAX_LINE])
    if b"\n" not in ahead:
      raise self.error("a name without an end")
    text = self.text(ahead.index(b"\n"))
    self.take(1)
    return text

  def text(self, size: int) -> str:
    try:
      return str(self.take(size), "utf-8")
    except UnicodeDecodeError as e:
      raise self.error(f"a text is not UTF-8 ({e.reason})") from e

  # The stack.

  def push(self, value: Any) -> None:
    self._stack.append(value)

  def pop(self) -> Any:
    if len(self._stack) <= (self._marks[-1] if self._marks else 0):
      raise self.error("the pickle takes a value that is not there")
    return self._stack.pop()

  def pop_to_mark(self) -> list[Any]:
    if not self._marks:
      raise self.error("the pickle ends a group that it did not begin")
    mark = self._marks.pop()
    items = self._stack[mark:]
    del self._stack[mark:]
    return items

  def top(self, kind: type) -> Any:
    """The value on top, left there."""
    value = self.pop()
    if not isinstance(value, kind):
      raise self.error(
        f"the pickle fills a {_kind(value)} like a {kind.__name__}"
      )
    self.push(value)
    return value

  # Instructions.

  def mark(self) -> None:
    self._marks.append(len(self._stack))

  def frame(self) -> None:
    if self.uint(8) > len(self._data) - self.pos:
      raise self.error("a frame is longer than the file")

  def long(self) -> None:
    self.push(int.from_bytes(self.take(self.uint(1)), "little", signed=True))

  def pack(self, size: int) -> None:
    items = [self.pop() for _ in range(size)]
    self.push(tuple(reversed(items)))

  def extend(self, items: list[Any]) -> None:
    self.top(list).extend(items)

  def set_items(self, items: list[Any]) -> None:
    target = self.top(dict)
    if len(items) % 2:
      raise self.error("a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
      if not isinstance(key, str):  # others can be made to collide
        raise self.error(f"a key that is a {_kind(key)}")
      if key in target:
        raise self.error(f"the key {str(key)[:60]!r} is there twice")
      target[key] = value

  def put(self, index: int) -> None:
    if index != len(self._memo):  # as every writer of pickles counts
      raise self.error("the pickle's memory is out of order")
    value = self.pop()
    self._memo.append(value)
    self.push(value)

  def get(self, index: int) -> None:
    if index >= len(self._memo):
      raise self.error("the pickle recalls what it did not keep")
    self.push(self._memo[index])

  def look_up(self, module: Any, name: Any) -> None:
    full = f"{module}.{name}" if type(module) is type(name) is str else "?"
    if full not in self._names:
      raise self.error(f"the pickle wants {full[:80]!r}, which is refused")
    self.push(Global(full, self._names[full]))

  def global_from_lines(self) -> None:
    self.look_up(self.line(), self.line())

  def global_from_stack(self) -> None:
    name = self.pop()
    self.look_up(self.pop(), name)

  def inst(self) -> None:
    self.global_from_lines()  # which names what is refused
    self.refuse()

  def reduce(self) -> None:
    args, function = self.pop(), self.pop()
    if not isinstance(function, Global) or not callable(function.value):
      raise self.error(
        f"the pickle calls a {_kind(function)}, which is refused"
      )
    if type(args) is not tuple:  # a Global is one, too
      raise self.error(f"arguments that are a {_kind(args)}")
    self.push(function.value(args))

  def build(self) -> None:
    state, value = self.pop(), self.pop()
    if self._build is None:
      raise self.error(f"the pickle sets the state of a {_kind(value)}")
    self._build(value, state)
    self.push(value)

  def persistent_id(self) -> None:
    if self._persistent is None:
      raise self.error("the pickle wants data from elsewhere")
    self.push(self._persistent(self.pop()))


def _kind(value: Any) -> str:
  return value.name[:80] if isinstance(value, Global) else type(value).__name__


_STOP = b"."[0]
_MAX_LINE = 256  # bytes of a module's or a function's name
_INSTRUCTIONS: dict[int, Callable[[_Machine], None]] = {
  code[0]: instruction
  for code, instruction in {
    b"N": lambda m: m.push(None),  # NONE
    b"\x88": lambda m: m.push(True),  # NEWTRUE
    b"\x89": lambda m: m.push(False),  # NEWFALSE
    b"K": lambda m: m.push(m.uint(1)),  # BININT1
    b"M": lambda m: m.push(m.uint(2)),  # BININT2
    b"J": lambda m: m.push(struct.unpack("<i", m.take(4))[0]),  # BININT
    b"\x8a": _Machine.long,  # LONG1
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),  # BINFLOAT
    b"\x8c": lambda m: m.push(m.text(m.uint(1))),  # SHORT_BINUNICODE
    b"X": lambda m: m.push(m.text(m.uint(4))),  # BINUNICODE
    b"C": lambda m: m.push(bytes(m.take(m.uint(1)))),  # SHORT_BINBYTES
    b"B": lambda m: m.push(bytes(m.take(m.uint(4)))),  # BINBYTES
    b")": lambda m: m.push(()),  # EMPTY_TUPLE
    b"\x85": lambda m: m.pack(1),  # TUPLE1
    b"\x86": lambda m: m.pack(2),  # TUPLE2
    b"\x87": lambda m: m.pack(3),  # TUPLE3
    b"(": _Machine.mark,  # MARK
    b"t": lambda m: m.push(tuple(m.pop_to_mark())),  # TUPLE
    b"]": lambda m: m.push([]),  # EMPTY_LIST
    b"a": lambda m: m.extend([m.pop()]),  # APPEND
    b"e": lambda m: m.extend(m.pop_to_mark()),  # APPENDS
    b"}": lambda m: m.push({}),  # EMPTY_DICT
    b"s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),  # SETITEM
    b"u": lambda m: m.set_items(m.pop_to_mark()),  # SETITEMS
    b"q": lambda m: m.put(m.uint(1)),  # BINPUT
    b"r": lambda m: m.put(m.uint(4)),  # LONG_BINPUT
    b"\x94": lambda m: m.put(len(m._memo)),  # MEMOIZE
    b"h": lambda m: m.get(m.uint(1)),  # BINGET
    b"j": lambda m: m.get(m.uint(4)),  # LONG_BINGET
    b"\x95": _Machine.frame,  # FRAME
    b"c": _Machine.global_from_lines,  # GLOBAL
    b"\x93": _Machine.global_from_stack,  # STACK_GLOBAL
    b"i": _Machine.inst,  # INST
    b"R": _Machine.reduce,  # REDUCE
    b"b": _Machine.build,  # BUILD
    b"Q": _Machine.persistent_id,  # BINPERSID
  }.items()
}
