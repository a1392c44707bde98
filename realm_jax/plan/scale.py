"""One config on meshes of many sizes over corpora of several: what a device
holds and sends, and the least time of a step, of its search, of a refresh.

Of each part of a step the least time is that of its FLOPs or of its bytes at
the peaks of the hardware, whichever is longer, as in `cost.Cost.seconds`; of
what is sent, bytes over the hardware's wire. What a step makes for itself does
not grow with the corpus: it is traced once for each mesh, as is the slice of
blocks that is embedded at a time.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from realm_jax.config import InputError
from realm_jax.plan import plan
from realm_jax.plan.hardware import Hardware
from realm_jax.plan.plan import Program, show
from realm_jax.plan.report import seconds

WIKIPEDIA = 13_353_718  # blocks of the paper
BLOCKS = (WIKIPEDIA, 1_000_000_000)
DEVICES = (8, 16, 32, 64, 128, 256, 512)
_APART = ("search", "refresh slice")  # grow with the corpus


class Row(NamedTuple):
  """What a mesh takes of each of its devices for a corpus.

  Attributes:
    devices: of the mesh.
    blocks: N.
    corpus: bytes of index, double buffer and block tokens.
    memory: bytes, of all.
    sent: bytes a step.
    sending: seconds of that.
    search: seconds, of all queries in the device's rows.
    step: seconds, with the search, without a refresh slice.
    refresh: seconds, of all blocks by all devices.
  """

  devices: int
  blocks: int
  corpus: int
  memory: int
  sent: int
  sending: float
  search: float
  step: float
  refresh: float


_HEAD = (
  "devices", "blocks", "corpus a device", "memory a device", "sent a step",
  "sending", "search", "step", "refresh",
)  # fmt: skip


def rows(
  make: Callable[[int, int], Program],
  hardware: Hardware,
  blocks: Iterable[int] = BLOCKS,
  devices: Iterable[int] = DEVICES,
) -> Iterator[Row]:
  """The rows of each mesh.

  Args:
    make: (blocks, devices) -> the program of one of the devices; of a run that
      searches.
    hardware: of the devices.
    blocks: sizes of the corpus.
    devices: sizes of the mesh.

  Raises:
    InputError: a figure of the hardware is missing, or the run searches nothing.
  """
  if None in hardware:
    raise InputError("--scale wants the figures of a device: give --platform")
  for count in devices:
    made = {size: make(size, count) for size in blocks}
    first = next(iter(made.values()))
    if first.embed_all is None:
      raise InputError(
        "--scale is of a run with an index: give configs/pretrain.py or"
        " finetune.py"
      )
    working = sum(plan.working(first).values())
    parts = {k: v for k, v in first.parts.items() if k not in _APART}
    costs = plan.parts(dataclasses.replace(first, parts=parts)).values()
    rest = sum(_seconds(cost, hardware) for cost in costs)
    piece = plan.cost_of(dataclasses.replace(first.embed_all, times=1))
    for size, program in made.items():
      yield _row(program, size, working, rest, piece, hardware)


def _row(program, size, working, rest, piece, hardware) -> Row:
  held = plan.held(program)
  sent = sum(program.sent.values())
  search = _seconds(plan.cost_of(program.parts["search"]), hardware)
  return Row(
    devices=program.devices,
    blocks=size,
    corpus=sum(
      held[name] for name in ("index", "double buffer", "block tokens")
    ),
    memory=sum(held.values()) + working,
    sent=sent,
    sending=sent / hardware.wire,
    search=search,
    step=rest + search,
    refresh=_seconds(piece.times(program.embed_all.times), hardware),
  )


def table(rows: Iterable[Row], hardware: Hardware) -> Iterator[str]:
  """The lines of a table in Markdown, as the rows come."""
  yield _line(_HEAD)
  yield _line(["---"] * len(_HEAD))
  for row in rows:
    fits = "" if row.memory <= hardware.memory else ": does not fit"
    sizes = show(row.corpus), show(row.memory) + fits, show(row.sent)
    times = map(seconds, (row.sending, row.search, row.step, row.refresh))
    yield _line([str(row.devices), f"{row.blocks:,}", *sizes, *times])


def _seconds(cost, hardware: Hardware) -> float:
  return cost.seconds(hardware.flops, hardware.bandwidth)


def _line(cells) -> str:
  return f"| {' | '.join(cells)} |"
