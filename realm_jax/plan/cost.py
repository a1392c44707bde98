"""FLOPs and bytes of a program, counted from its trace.

FLOPs are those of matrix products, a multiply-add as two, over all that the
machine is given to do, padding as well. Bytes are what its kernels read and
write (plan/kernels.py). A loop of unknown length counts as one round. Attention
that is one operation (cuDNN's, of models/attention.py) counts as the products
that it stands for, and so does our own kernel (retrieval/hopper.py); what a
kernel of one's own hides is not counted.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from realm_jax.plan import kernels, trace
from realm_jax.plan.trace import Op, Traced

# How jax.nn.dot_product_attention(implementation="cudnn") is traced -> its
# products, each of all queries with all keys: forward two, backward four; that
# it computes the scores again there is no work of the model's.
_ATTENTION = {
  "dot_product_attention_fwd_wrapper": 2,
  "dot_product_attention_bwd_wrapper": 4,
}
# The scope of the kernel that searches: one product of its two operands.
_BUCKET_MAXIMA = "/bucket_maxima"


class Cost(NamedTuple):
  """flops and bytes of a program, run once."""

  flops: int = 0
  bytes: int = 0

  def times(self, count: int) -> "Cost":
    """Of so many runs."""
    return Cost(self.flops * count, self.bytes * count)

  def plus(self, other: "Cost") -> "Cost":
    """Of both."""
    return Cost(self.flops + other.flops, self.bytes + other.bytes)

  def seconds(self, flops_per_s: float, bytes_per_s: float) -> float:
    """The two-number floor: neither the products nor the memory is faster."""
    return max(self.flops / flops_per_s, self.bytes / bytes_per_s)


def count(function: Callable, *args: Any, cpu: bool = False) -> Cost:
  """The cost of a function of pytrees of arrays or ShapeDtypeStructs."""
  return split(function, *args, scopes={}, cpu=cpu)[""]


def split(
  function: Callable, *args: Any, scopes: dict[str, str], cpu: bool = False
) -> dict[str, Cost]:
  """The same, by the module that an operation comes from.

  Args:
    function: of `args`.
    *args: pytrees of arrays or ShapeDtypeStructs.
    scopes: part -> name of the Flax module whose operations it is.
    cpu: whether XLA compiles it for a CPU.

  Returns:
    Part -> cost; "" is of all that belongs to no part.
  """
  return _by_scope(trace.trace(function, *args), scopes, cpu)


def _by_scope(traced: Traced, scopes: dict[str, str], cpu: bool):
  found = dict.fromkeys(["", *scopes], Cost())

  def add(op, cost):
    part = next(
      (p for p, s in scopes.items() if f"/{s}/" in f"{op.scope}/"), ""
    )
    found[part] = found[part].plus(cost)

  for op in traced.ops:
    inner = [
      _by_scope(trace.flatten(p), {}, cpu)[""] for p in trace.inner_programs(op)
    ]
    most = max(inner, default=Cost())  # the costliest branch
    add(op, most.times(op.params.get("length", 1)))
    add(op, Cost(flops=products(op)))
  for kernel in kernels.kernels(traced, cpu):
    if not trace.inner_programs(kernel.op):
      add(kernel.op, Cost(bytes=kernel.bytes))
  return found


def products(op: Op) -> int:
  """FLOPs of the matrix products that an operation is."""
  if op.name in _ATTENTION:
    q, k = op.reads[:2]  # [R, T, H, D/H]
    return 2 * _ATTENTION[op.name] * math.prod(q.shape) * k.shape[1]
  if op.scope.endswith(_BUCKET_MAXIMA):
    rows, queries = op.reads
    return 2 * math.prod(rows.shape) * queries.shape[0]
  if op.name != "dot_general":
    return 0
  (contracted, _), _ = op.params["dimension_numbers"]
  summed = math.prod(op.reads[0].shape[axis] for axis in contracted)
  return 2 * math.prod(op.writes[0].shape) * summed
