"""The table of sizes is the planner's word, and launch/README.md has it all."""

import pathlib

import pytest

from benchmarks import sizes
from realm_jax.plan.cost import Cost

README = pathlib.Path(__file__).parents[2] / "launch" / "README.md"


TOY = sizes.Hardware("toy", "", memory=1e3, flops=1e6, bandwidth=1e9)


def test_a_row_has_its_own_floors(monkeypatch):
  monkeypatch.setattr(sizes.programs, "program", _program)
  monkeypatch.setattr(
    sizes.plan, "memory", lambda program: {"a": 900, "b": 200}
  )
  # 3 s by its FLOPs, 2 s by its bytes: the longer one of each part
  parts = {"x": Cost(flops=3e6, bytes=1e9), "y": Cost(flops=1e6, bytes=2e9)}
  monkeypatch.setattr(sizes.plan, "parts", lambda program: parts)
  monkeypatch.setattr(
    sizes.plan, "refresh", lambda devices: Cost(7e6 / devices, 0)
  )
  row = sizes.Row("smoke", TOY, 4, 6, num_blocks=1_030, refreshers=2)
  assert sizes.cells(row) == [
    "smoke", "1,030", "toy", "data=4, and 2 that refresh", "6",
    "1.1 kB: does not fit", "4 MFLOP", "5 s", "3.5 s",
  ]  # fmt: skip
  alone = sizes.cells(row._replace(refreshers=0))
  assert alone[3] == "data=4" and alone[-1] == "1.75 s"


def _program(config, workdir, num_blocks, devices):
  assert (config.train.batch_size, num_blocks) == (6, 1_030)
  return devices


@pytest.mark.nightly  # a minute
def test_the_planner_knows_the_rows():
  cells = sizes.cells(sizes.ROWS[0])
  assert "not fit" not in cells[5] and cells[6].endswith(" GFLOP")


def test_the_readme_has_every_row():
  lines = README.read_text().splitlines()
  for row in sizes.ROWS:
    head = f"| {row.size} | {row.num_blocks:,} | {row.hardware.name} |"
    assert sum(line.startswith(head) for line in lines) >= 1, head
