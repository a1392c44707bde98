"""Which values of a program a compiler writes to memory, and when they die.

Elementwise operations are computed where they are read, from what was written
last: a compiler fuses them into their readers. A value is written where it
must be, or where that is cheaper:

- it is the result of a product, a reduction, a gather, a sort, a loop;
- one of these reads it, and is no reduction (those take in what they sum);
- several read it and it takes a transcendental function to compute it;
- several read it and it stands for operands that together are larger.

So the backward pass keeps the inputs of products, the pre-activation and the
activation of a hidden layer, the softmax's weights, a norm's input; an exact
list for every program, without a formula for any. On CPU, XLA writes more: an
operand that is broadcast into a reduction's sum, and the operands of a batched
product with their batch axes first.

Values are written in the order of the trace, forward then backward.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from realm_jax.plan import trace
from realm_jax.plan.trace import Op, Traced, Value

_LARGER = 1.5  # operands of this many times a value's bytes: write the value
_PARTS = ("slice", "split", "dynamic_slice")
_BROADCAST = 4  # a value of this many times its operands' bytes is a broadcast


class Kernel(NamedTuple):
  """What is computed without going through memory.

  Attributes:
    op: the operation whose results are written.
    reads: value in memory -> bytes of it that are read.
    writes: what is written.
    inner: bytes that a loop's body or a branch takes while it runs.
  """

  op: Op
  reads: dict[Value, int]
  writes: list[Value]
  inner: int = 0

  @property
  def in_place(self) -> bool:
    """Whether it can write over an operand that nobody needs any more."""
    name = self.op.name
    return self.op.is_elementwise or self.op.is_view or name.startswith(
      ("scatter", "dynamic_update_slice", "scan", "while", "dot_general_copy")
    )  # fmt: skip

  @property
  def bytes(self) -> int:
    """Read and written, once."""
    written = sum(v.bytes for v in self.writes)
    if self.op.name.startswith("gather"):
      return 2 * written
    if self.op.name == "dynamic_update_slice":
      return 2 * self.op.reads[1].bytes
    if self.op.name.startswith("scatter"):  # what is not touched is not moved
      return 2 * self.op.reads[-1].bytes
    return written + sum(self.reads.values())


class _Fuser:
  """Goes through a program once; see the module."""

  def __init__(self, traced: Traced, cpu: bool):
    self.cpu = cpu
    self.kernels: list[Kernel] = []
    self.results = {v for v in traced.results if v}
    self.readers = defaultdict(list)
    for op in traced.ops:
      for value in dict.fromkeys(v for v in op.reads if v):
        self.readers[value].append(op)
    # what each value is computed from; whether that takes long
    self.sources = {v: {v: v.bytes} for v in traced.arguments}
    self.slow: set[Value] = set()
    self.copies: dict = {}
    self.summed = self._summed(traced.ops)
    self.arguments = set(traced.arguments)
    for op in traced.ops:
      self._add(op)

  def _summed(self, ops: list[Op]) -> set[Value]:
    """The values that reach a reduction by elementwise operations alone."""
    found = set()
    for op in reversed(ops):
      if op.is_reduction or (op.fuses and found.intersection(op.writes)):
        found.update(v for v in op.reads if v)
    return found

  def _add(self, op: Op) -> None:
    operands = [self.sources.get(v, {}) if v else {} for v in op.reads]
    if self.cpu and op.is_elementwise and op.writes[0] in self.summed:
      self._write_broadcasts(op, operands)
    if self.cpu and op.name == "dot_general":
      self._write_copies(op, operands)
    reads = _union(operands)
    if op.name in _PARTS:  # of what it is a part of, it reads that part
      most = max(v.bytes for v in op.writes)
      reads = {v: min(n, most) for v, n in reads.items()}
    slow = op.is_costly or any(v in self.slow for v in op.reads)
    if self._is_written(op, reads, slow):
      inner = max(map(_inner_peak, trace.inner_programs(op)), default=0)
      self.kernels.append(Kernel(op, reads, op.writes, inner))
      self.sources.update((v, {v: v.bytes}) for v in op.writes)
      return
    for value in op.writes:
      self.sources[value] = dict(reads)
      if slow:
        self.slow.add(value)

  def _is_written(self, op: Op, reads: dict[Value, int], slow: bool) -> bool:
    if not (op.is_view or op.is_elementwise):
      return True
    if self.results.intersection(op.writes):
      return True
    if op.is_view:
      return False
    readers = self._readers(op.writes[0])
    if any(not reader.fuses for reader in readers):
      return True
    if len(readers) < 2 or not reads:
      return False
    bytes_read = sum(v.bytes for v in reads)
    return slow or bytes_read >= _LARGER * op.writes[0].bytes

  def _readers(self, value: Value) -> list[Op]:
    """Who reads a value, looking through views of it."""
    found = {}
    for op in self.readers[value]:
      if op.is_view:
        for view in op.writes:
          found |= {id(reader): reader for reader in self._readers(view)}
      elif not (self.cpu and _copies(op, value)):
        found[id(op)] = op
    return list(found.values())

  def _write_broadcasts(self, op: Op, operands: list[dict]) -> None:
    """Gives each small operand of an elementwise `op` its result's size."""
    size = op.writes[0].bytes
    for i, value in enumerate(op.reads):
      if value is None or value in self.arguments:
        small = value is not None and value.bytes < size
      else:
        of = sum(v.bytes for v in operands[i])
        small = value.bytes < size or 0 < of < size / _BROADCAST
      if small:
        operands[i] = self._copy(op, (value, size), operands[i], size)

  def _write_copies(self, op: Op, operands: list[dict]) -> None:
    """Gives a product operands that begin with their batch axes."""
    for i, value in enumerate(op.reads):
      batch = op.params["dimension_numbers"][1][i]
      if value and _is_moved(batch):
        key = (value, tuple(batch))
        operands[i] = self._copy(op, key, operands[i], value.bytes)

  def _copy(self, op, key, reads, size):
    if key not in self.copies:
      copy = Value(-1 - len(self.copies), size, op.writes[0].shape)
      self.copies[key] = copy
      named = op._replace(name=f"{op.name}_copy", writes=[copy])
      self.kernels.append(Kernel(named, reads, [copy]))
    return {self.copies[key]: size}


def kernels(traced: Traced, cpu: bool) -> list[Kernel]:
  """The kernels of a program in the order in which they run.

  Args:
    traced: the program.
    cpu: whether XLA compiles it for a CPU.
  """
  return _Fuser(traced, cpu).kernels


def peak(
  traced: Traced, cpu: bool, num_donated: int = 0
) -> tuple[int, list[Value]]:
  """The most bytes that a program has in memory beside its arguments.

  Args:
    traced: the program.
    cpu: whether XLA compiles it for a CPU.
    num_donated: how many results, the first, take the place of arguments.

  Returns:
    The bytes, and the values that are there at that moment.
  """
  fuser = _Fuser(traced, cpu)
  last: dict[Value, int] = {}
  for time, kernel in enumerate(fuser.kernels):
    last.update((v, time) for v in kernel.reads)
  kept = _union(fuser.sources.get(v, {}) for v in traced.results if v)
  last.update((v, len(fuser.kernels)) for v in kept)
  placed = set(traced.arguments) | set(traced.results[:num_donated])
  dying = defaultdict(list)
  for value, time in last.items():
    dying[time].append(value)

  live, size, most, at_most = set(), 0, 0, []
  for time, kernel in enumerate(fuser.kernels):
    ending = [v for v in dying[time] if v in live]
    if kernel.in_place:
      over = [v for v in ending if v.bytes == kernel.writes[0].bytes][:1]
      live.difference_update(over)
      size -= sum(v.bytes for v in over)
    new = [v for v in kernel.writes if v not in placed]
    live.update(new)
    size += sum(v.bytes for v in new)
    if size + kernel.inner > most:
      most, at_most = size + kernel.inner, list(live)
    unread = [v for v in new if v not in last]
    gone = live.intersection([*ending, *unread])
    live -= gone
    size -= sum(v.bytes for v in gone)
  return most, at_most


def _inner_peak(jaxpr) -> int:
  """Of a body or branch; what it carries on is where it was."""
  return peak(trace.flatten(jaxpr), False, len(jaxpr.outvars))[0]


def _copies(op: Op, value: Value) -> bool:
  """Whether a product reads the value by copies of it alone."""
  if op.name != "dot_general":
    return False
  batch = op.params["dimension_numbers"][1]
  return all(_is_moved(batch[i]) for i, v in enumerate(op.reads) if v == value)


def _is_moved(batch) -> bool:
  return tuple(batch) != tuple(range(len(batch)))


def _union(reads: Iterable[dict[Value, int]]) -> dict[Value, int]:
  """All that is read; the larger part of what is read twice."""
  found: dict[Value, int] = {}
  for operand in reads:
    for value, size in operand.items():
      found[value] = max(size, found.get(value, 0))
  return found
