"""A run's plan: memory a device, FLOPs and bytes a step, cost of a refresh.

A `Program` describes what one device runs, by shapes; nothing is allocated. On
a mesh a device has its share of the batch, the index and the block tokens, and
of the params and their moments what its sharding says.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from realm_jax import backend
from realm_jax.config import InputError
from realm_jax.plan import cost, kernels, trace
from realm_jax.plan.cost import Cost

# Part of the memory -> what makes it smaller.
_MENDS = {
  "params": "a larger mesh.fsdp, or a smaller hidden_size",
  "optimizer moments": "a larger mesh.fsdp, or a smaller hidden_size",
  "gathered params": "a larger mesh.tensor, or a smaller hidden_size",
  "gradients": "a smaller hidden_size, or fewer layers",
  "index": "more devices",
  "double buffer": "more devices, or --config.refresh.mode=inline",
  "block tokens": "more devices, a smaller block_len, or --config.block_tokens=host",
  "batch": "a smaller train.batch_size, or more devices",
  "activations": (
    "more microbatches, remat=full, a smaller train.batch_size{more}, or more"
    " devices"
  ),
  "logits": "a smaller train.batch_size{more}, or more devices",
}


@dataclasses.dataclass(frozen=True)
class Part:
  """Something that a step does: function(*args), `times` over.

  `scopes` as in cost.split.
  """

  function: Callable
  args: tuple
  times: int = 1
  scopes: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Program:
  """What one device runs.

  Attributes:
    step: step(state, index, batch, tokens), the first two donated.
    args: its arguments, as ShapeDtypeStructs of what a device holds.
    state_sizes: bytes of a device's "params", "optimizer moments", and, where
      the params are split between uses, "gathered params".
    parts: name -> part of the step, in its order.
    embed_all: embeds a device's share of the corpus; None without an index.
    refresh_every: steps between two versions; 0 for never.
    vocab_size: V, the last axis of logits.
    fields: what makes the activations smaller beside a smaller batch: config
      fields that they grow with, and others in words.
    devices: of the mesh.
    sent: what -> bytes that a device sends in a step (plan/wire.py).
    on_host: part of the memory -> bytes of it that lie on the host, none of
      them on a device.
  """

  step: Callable
  args: tuple
  state_sizes: dict[str, int]
  parts: dict[str, Part]
  embed_all: Part | None
  refresh_every: int
  vocab_size: int
  fields: tuple[str, ...]
  devices: int
  sent: dict[str, int]
  on_host: dict[str, int] = dataclasses.field(default_factory=dict)


def memory(program: Program, compiled: bool = False) -> dict[str, int]:
  """Part -> bytes of a device's memory at the fullest moment of a step.

  Args:
    program: of the run.
    compiled: whether the compiler says what a step takes beside its arguments
      (minutes for a large model), not the model of it in plan/kernels.py.
  """
  return {**held(program), **working(program, compiled)}


def held(program: Program) -> dict[str, int]:
  """Part -> bytes of what is there between steps, and the batch."""
  _, index, batch, tokens = program.args
  buffer = None
  if index is not None and index.shadow is not None:
    buffer = (index.shadow, index.shadow_params)
  return {
    **program.state_sizes,
    "index": bytes_of(index) - bytes_of(buffer),
    "double buffer": bytes_of(buffer),
    "block tokens": bytes_of(tokens),
    "batch": bytes_of(batch),
  }


def working(program: Program, compiled: bool = False) -> dict[str, int]:
  """Part -> bytes of what a step makes at its fullest moment; see memory."""
  state, index, _, _ = program.args
  donated = len(jax.tree.leaves((state, index)))
  traced = trace.trace(program.step, *program.args)
  most, live = kernels.peak(traced, _on_cpu(), donated)
  if compiled:
    stats = compiled_memory(program)
    most = max(stats.temp_size_in_bytes, 0)
  wide = {x.shape for x in jax.tree.leaves(state.params) if len(x.shape) > 1}
  logits = _bytes(v for v in live if v.shape[-1:] == (program.vocab_size,))
  gradients = _bytes(v for v in live if v.shape in wide)
  # a mesh sums them over its devices into arrays of their own, half
  # as large as the optimizer's two moments
  moments = program.state_sizes["optimizer moments"]
  summed = moments // 2 if program.devices > 1 else 0
  return {
    "activations": max(most - logits - gradients, 0),
    "logits": logits,
    "gradients": gradients + summed,
  }


def compiled_memory(program: Program):
  """The compiler's memory analysis of the step; no array is allocated."""
  return compiled(program).memory_analysis()


def compiled(program: Program):
  """The compiled step, the new state where the old one was."""
  places = jax.tree.map(lambda x: x.sharding, program.args[0])
  step = jax.jit(
    program.step, donate_argnums=(0, 1), out_shardings=(places, None, None)
  )
  return step.lower(*program.args).compile()


def parts(program: Program) -> dict[str, Cost]:
  """Part -> cost of a step on one device, in the order of the step."""
  found = {}
  for name, part in program.parts.items():
    costs = cost.split(
      part.function, *part.args, scopes=part.scopes, cpu=_on_cpu()
    )
    for inner, value in costs.items():
      found[inner or name] = value.times(part.times)
  return found


def refresh(program: Program) -> Cost | None:
  """What it costs a device to embed its share of all blocks."""
  return program.embed_all and cost_of(program.embed_all)


def cost_of(part: Part) -> Cost:
  """Of all of its times."""
  once = cost.count(part.function, *part.args, cpu=_on_cpu())
  return once.times(part.times)


def check(program: Program, sizes: dict[str, int], available: int) -> None:
  """Refuses a run that does not fit.

  Args:
    program: of the run.
    sizes: what `memory` says of it.
    available: bytes of a device's memory.

  Raises:
    InputError: names the biggest part and what to change.
  """
  total = sum(sizes.values())
  if total <= available:
    return
  biggest = max(sizes, key=sizes.get)
  more = "".join(f" or {name}" for name in program.fields)
  raise InputError(
    f"the run takes {show(total)} a device, and there is {show(available)}:"
    f" the biggest part is {biggest}, {show(sizes[biggest])}: take"
    f" {_MENDS[biggest].format(more=more)}"
  )


def show(size: float, unit: str = "B") -> str:
  """12.3 GB, with three digits."""
  for prefix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
    if size >= 0.9995 * scale:
      return f"{size / scale:.3g} {prefix}{unit}"
  return f"{size / 1e3:.3g} k{unit}" if size else "0"


def bytes_of(tree: Any) -> int:
  """Of all arrays, or ShapeDtypeStructs, of a pytree."""
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _on_cpu() -> bool:
  return backend.name() == "cpu"


def _bytes(values) -> int:
  return sum(v.bytes for v in values)
