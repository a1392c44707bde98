"""What runs of several sizes take of several machines, by the planner.

  python -m benchmarks.sizes            # the table of launch/README.md

Nothing runs and nothing is allocated: memory, FLOPs and bytes are read off the
shapes of the step, as experiments.plan does with --platform. The seconds are floors: each part
of a step takes as long as its FLOPs or its bytes, whichever is longer, at the
peaks that the maker states (bfloat16, dense), with nothing lost on the wire or
in the input.

Columns: memory of a device; FLOPs a device and step; the floor of a step; the
floor of a refresh, of all blocks, by the devices that do it.
"""

from collections.abc import Iterator
from typing import NamedTuple

from configs import pretrain
from realm_jax import backend
from realm_jax.plan import plan
from realm_jax.plan.cost import Cost
from realm_jax.plan.hardware import HARDWARE, Hardware
from realm_jax.plan.scale import WIKIPEDIA
from realm_jax.train import programs

LEADS = 10_096


class Row(NamedTuple):
  """One line of the table; `refreshers` devices embed the corpus, 0: inside."""

  size: str
  hardware: Hardware
  devices: int
  batch_size: int
  num_blocks: int = WIKIPEDIA
  refreshers: int = 0


A100, H100, V3, V5P = (HARDWARE[name] for name in ("a100", "h100", "v3", "v5p"))
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
  with backend.planned(row.hardware.backend):
    return _cells(row)


def _cells(row: Row) -> list[str]:
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
