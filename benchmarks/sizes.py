"""What runs of several sizes take of several machines, by the planner.

  python -m benchmarks.sizes            # the table of launch/README.md

Nothing runs and nothing is allocated: memory, FLOPs and bytes are read off the
shapes of the step, as experiments.plan does. The seconds are floors: each part
of a step takes as long as its FLOPs or its bytes, whichever is longer, at the
peaks that the maker states (bfloat16, dense), with nothing lost on the wire or
in the input.

Columns: memory of a device; FLOPs a device and step; the floor of a step; the
floor of a refresh, of all blocks, by the devices that do it.
"""

from collections.abc import Iterator
from typing import NamedTuple

from configs import pretrain
from realm_jax.plan import plan
from realm_jax.plan.cost import Cost
from realm_jax.train import programs

WIKIPEDIA = 13_353_718  # blocks
LEADS = 10_096


class Hardware(NamedTuple):
  """A device by its data sheet: bytes, FLOPs a second, bytes a second."""

  name: str
  memory: float
  flops: float
  bandwidth: float


class Row(NamedTuple):
  """One line of the table; `refreshers` devices embed the corpus, 0: inside."""

  size: str
  hardware: Hardware
  devices: int
  batch_size: int
  num_blocks: int = WIKIPEDIA
  refreshers: int = 0


H100 = Hardware("H100 SXM 80 GB", 80e9, 989e12, 3.35e12)
H200 = Hardware("H200 SXM 141 GB", 141e9, 989e12, 4.8e12)
A100 = Hardware("A100 SXM 80 GB", 80e9, 312e12, 2.04e12)
V5P = Hardware("TPU v5p", 95e9, 459e12, 2.77e12)
V3 = Hardware("TPU v3, a core", 16e9, 61.5e12, 0.45e12)
ROWS = (
  Row("demo", A100, 1, 16, LEADS),
  Row("base", H100, 8, 64),
  Row("base", A100, 64, 512, refreshers=16),
  Row("base", H100, 64, 512, refreshers=16),
  Row("base", V5P, 64, 512, refreshers=16),
  Row("base", V3, 64, 512, refreshers=16),  # the paper's
)
_HEAD = (
  "size", "blocks", "hardware", "mesh", "batch", "memory a device",
  "a step, FLOPs a device", "step, at least", "refresh, at least",
)  # fmt: skip


def table(rows=ROWS) -> Iterator[str]:
  """The lines of the table, in Markdown."""
  yield _line(_HEAD)
  yield _line(["---"] * len(_HEAD))
  for row in rows:
    yield _line(cells(row))


def cells(row: Row) -> list[str]:
  """What the planner says of a row."""
  program = programs.program(_config(row), ".", row.num_blocks, row.devices)
  total = sum(plan.memory(program).values())
  parts = plan.parts(program)
  embed = program
  if row.refreshers:
    embed = programs.program(_config(row), ".", row.num_blocks, row.refreshers)
  fits = "" if total <= row.hardware.memory else ": does not fit"
  mesh = f"data={row.devices}"
  if row.refreshers:
    mesh += f", and {row.refreshers} that refresh"
  step = sum(_seconds(cost, row.hardware) for cost in parts.values())
  return [
    row.size,
    f"{row.num_blocks:,}",
    row.hardware.name,
    mesh,
    str(row.batch_size),
    plan.show(total) + fits,
    plan.show(sum(cost.flops for cost in parts.values()), "FLOP"),
    f"{step:.3g} s",
    f"{_seconds(plan.refresh(embed), row.hardware):.3g} s",
  ]


def _config(row: Row):
  config = pretrain.get_config(row.size)
  config.train.batch_size = row.batch_size
  if row.refreshers:
    config.refresh.mode = "worker"
    config.train.checkpoint_every = config.refresh.every_steps // 2
  return config


def _seconds(cost: Cost, hardware: Hardware) -> float:
  return cost.seconds(hardware.flops, hardware.bandwidth)


def _line(cells) -> str:
  return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
  for line in table():
    print(line, flush=True)
