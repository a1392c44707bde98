"""FLOPs of a step that jit has traced, over all devices: what its pace is told in.

As in plan/cost.py they are those of matrix products, a multiply-add as two,
over all places that are computed, those of padding too. What the backward pass
computes again (remat) is not counted: it is no work of the model's. Bytes
aren't asked for, so this takes a tenth of a second where cost.py takes one.
"""

import fractions
import math
import re
from collections.abc import Mapping

from jax.extend import core

from realm_jax.plan import cost, trace
from realm_jax.plan.trace import Op, Traced

_AGAIN = "rematted_computation"  # the scope that JAX gives it


def count(
  jaxpr: core.Jaxpr, scope: str = "", rounds: int = 1
) -> tuple[int, int]:
  """FLOPs of a program run once, and those of them under a scope.

  Args:
    jaxpr: such as `jitted.trace(...).jaxpr`, of global shapes.
    scope: a jax.named_scope in it.
    rounds: of a loop whose length the trace does not tell.
  """
  under = re.compile(rf"(^|[/(]){scope}($|[/)])")  # jvp(search) as well
  return _count(_flatten(jaxpr.jaxpr), under, rounds)


def at_length(length: int, counted: Mapping[int, int]) -> int:
  """FLOPs of a model at one length of sequence, from those at three others.

  No product of a transformer has the length in it more than twice (attention's
  do), so they are a parabola; a count takes far longer.

  Args:
    length: L.
    counted: L -> FLOPs, of three lengths.
  """
  total = fractions.Fraction()
  for a, flops in counted.items():
    others = (b for b in counted if b != a)
    total += flops * math.prod(
      fractions.Fraction(length - b, a - b) for b in others
    )
  return int(total)


def _count(traced: Traced, under: re.Pattern, rounds: int) -> tuple[int, int]:
  total = inside = 0
  for op in traced.ops:
    if _AGAIN in op.scope:
      continue
    programs = map(_flatten, trace.inner_programs(op))
    inner = [_count(program, under, rounds) for program in programs]
    most = max(inner, default=(0, 0))  # the costliest branch
    most = max(most, (cost.products(op), 0))
    of_op, of_scope = (n * _times(op, rounds) for n in most)
    total += of_op
    inside += of_op if under.search(op.scope) else of_scope
  return total, inside


def _flatten(jaxpr: core.Jaxpr) -> Traced:
  return trace.flatten(jaxpr, merge=False)


def _times(op: Op, rounds: int) -> int:
  """How often an operation runs its program."""
  if op.name == "while":
    return rounds
  if op.name == "shard_map":  # its shapes are those of one device
    axes = op.params["newly_manual_axes"]
    return math.prod(op.params["mesh"].shape[axis] for axis in axes)
  return op.params.get("length", 1)
