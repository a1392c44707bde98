"""A traced program as a flat list of operations, as a compiler would first
make it: calls inlined, what nobody reads left out, what is computed twice
computed once.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend import core

_CALLS = ("jit pjit closed_call core_call checkpoint remat2 custom_jvp_call"
          " custom_vjp_call custom_vjp_call_jaxpr").split()  # fmt: skip
_AGAIN = ("checkpoint", "remat2")  # of these calls: what is computed anew
_VIEWS = ("reshape broadcast_in_dim squeeze expand_dims convert_element_type"
          " transpose slice split rev iota copy copy_p stop_gradient"
          " bitcast_convert_type optimization_barrier random_wrap"
          " random_unwrap").split()  # fmt: skip
_MORE_ELEMENTWISE = ("pad concatenate dynamic_slice random_bits random_split"
                     " random_fold_in random_seed threefry2x32").split()  # fmt: skip
_NEVER_ELEMENTWISE = ("dot_general", "scatter", "cum", "sort", "gather",
                      "dynamic_update_slice", "select_and_")  # fmt: skip
_COSTLY = ("exp exp2 expm1 log log1p tanh logistic erf erfc erf_inv pow div rem"
           " sqrt rsqrt cbrt sin cos").split()  # fmt: skip


class Value(NamedTuple):
  """An array of the program."""

  number: int
  bytes: int
  shape: tuple[int, ...]


class Op(NamedTuple):
  """One operation.

  Attributes:
    name: of the primitive.
    params: its parameters.
    reads: the operands; None for a literal.
    writes: the results.
    scope: the modules and functions it comes from, with slashes.
  """

  name: str
  params: dict[str, Any]
  reads: list[Value | None]
  writes: list[Value]
  scope: str

  @property
  def is_view(self) -> bool:
    """Whether its result is its operand, seen or cast otherwise."""
    return self.name in _VIEWS

  @property
  def is_reduction(self) -> bool:
    """Whether it sums, or the like, over axes."""
    if self.name.startswith("reduce_"):
      return self.name != "reduce_precision"
    return self.name in ("argmax", "argmin")

  @property
  def is_costly(self) -> bool:
    """Whether it is elementwise and takes far longer than an addition."""
    return self.name in _COSTLY or "random_bits" in self.name

  @property
  def is_elementwise(self) -> bool:
    """Whether each element of the result is of one of each operand."""
    if self.name in _MORE_ELEMENTWISE:
      return True
    if self.is_view or self.is_reduction or self.name.startswith(
      _NEVER_ELEMENTWISE
    ):  # fmt: skip
      return False
    if len(self.writes) != 1 or any(map(_has_program, self.params.values())):
      return False
    shape = self.writes[0].shape
    return all(r is None or _broadcasts(r.shape, shape) for r in self.reads)

  @property
  def fuses(self) -> bool:
    """Whether a compiler can make it part of another's kernel."""
    return self.is_view or self.is_reduction or self.is_elementwise


class Traced(NamedTuple):
  """A program: its arguments, operations and results (None: a literal)."""

  arguments: list[Value]
  ops: list[Op]
  results: list[Value | None]


def trace(function: Callable, *args: Any) -> Traced:
  """Traces a function of pytrees of arrays or ShapeDtypeStructs."""
  return flatten(jax.make_jaxpr(function)(*args).jaxpr)


def flatten(jaxpr: core.Jaxpr, merge: bool = True) -> Traced:
  """The operations of a jaxpr and of all that it calls.

  Args:
    jaxpr: of a traced program.
    merge: whether what is elementwise and the same is there once; of matrix
      products that changes nothing, and it takes a third of the time.
  """
  numbers = iter(range(1 << 62))

  def new(var):
    shape = getattr(var.aval, "shape", ())
    itemsize = getattr(getattr(var.aval, "dtype", None), "itemsize", 0)
    return Value(next(numbers), math.prod(shape) * itemsize, tuple(shape))

  ops = []

  def again(value, scope):
    """A view that nothing else is a view of: what is computed of it is not what
    was computed of the value before."""
    view = value._replace(number=next(numbers))
    params = {"number": view.number}
    ops.append(Op("optimization_barrier", params, [value], [view], scope))
    return view

  def walk(jaxpr, env, scope):
    env.update((v, new(v)) for v in jaxpr.constvars if v not in env)

    def read(atom):
      return None if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
      reads = [read(v) for v in eqn.invars]
      inner = f"{scope}/{eqn.source_info.name_stack}"
      if eqn.primitive.name in _CALLS:
        called = next(p for p in map(_program, eqn.params.values()) if p)
        if eqn.primitive.name in _AGAIN:
          reads = [v and again(v, inner) for v in reads]
        # a literal that is passed on takes no memory
        given = dict(zip(called.invars, reads, strict=True))
        results = walk(called, given, inner)
        env.update(zip(eqn.outvars, results, strict=True))
        continue
      writes = [new(v) for v in eqn.outvars]
      env.update(zip(eqn.outvars, writes, strict=True))
      ops.append(Op(eqn.primitive.name, eqn.params, reads, writes, inner))
    return [read(v) for v in jaxpr.outvars]

  env = {v: new(v) for v in jaxpr.invars}
  arguments = [env[v] for v in jaxpr.invars]
  results = walk(jaxpr, env, "")
  ops = _needed(ops, results)
  if merge:
    ops, results = _once(ops, results)
  return Traced(arguments, ops, results)


def inner_programs(op: Op) -> list[core.Jaxpr]:
  """The programs that an operation runs: a loop's body, a choice's branches."""
  if op.name == "while":
    return [op.params["body_jaxpr"].jaxpr]
  values = op.params.values()
  lists = [v if isinstance(v, (tuple, list)) else (v,) for v in values]
  return [p for values in lists for p in map(_program, values) if p]


def _needed(ops, results):
  """Without what leads to no result."""
  wanted, kept = set(results), []
  for op in reversed(ops):
    if wanted.intersection(op.writes):
      kept.append(op)
      wanted.update(op.reads)
  return kept[::-1]


def _once(ops, results):
  """Each elementwise result once, however often it is asked for."""
  seen, instead, kept = {}, {}, []
  for given in ops:
    op = given._replace(reads=[instead.get(v, v) for v in given.reads])
    if (op.is_view or op.is_elementwise) and None not in op.reads:
      key = (op.name, str(op.params), *op.reads)
      if key in seen:
        instead.update(zip(op.writes, seen[key], strict=True))
        continue
      seen[key] = op.writes
    kept.append(op)
  return kept, [instead.get(v, v) for v in results]


def _program(value: Any) -> core.Jaxpr | None:
  """The jaxpr that a parameter is, if it is one."""
  value = getattr(value, "jaxpr", value)  # of a ClosedJaxpr
  return value if hasattr(value, "eqns") else None


def _has_program(value: Any) -> bool:
  values = value if isinstance(value, (tuple, list)) else (value,)
  return any(_program(v) is not None for v in values)


def _broadcasts(shape, to):
  """Whether [shape] has one element, or the same, along each axis."""
  if len(shape) not in (0, len(to)):
    return False
  return all(a in (1, b) for a, b in zip(shape, to, strict=False))
