"""The table of sizes is the planner's word, and launch/README.md has it all."""

import pathlib

import pytest

from benchmarks import sizes

README = pathlib.Path(__file__).parents[2] / "launch" / "README.md"


def test_a_row_says_what_the_planner_says():
  tiny = sizes.Hardware("toy", memory=1e3, flops=1e6, bandwidth=1e30)
  row = sizes.Row("smoke", tiny, 2, 4, num_blocks=30, refreshers=1)
  size, blocks, name, mesh, batch, memory, flops, step, refresh = sizes.cells(
    row
  )
  assert (size, blocks, name, batch) == ("smoke", "30", "toy", "4")
  assert mesh == "data=2, and 1 that refresh"
  assert memory.endswith(" MB: does not fit")
  value, unit = flops.split()
  assert unit == "MFLOP"  # at 1 MFLOP a second and no wait for memory:
  assert float(step.removesuffix(" s")) == pytest.approx(float(value), rel=0.01)
  assert float(refresh.removesuffix(" s")) > 0


def test_the_readme_has_every_row():
  lines = README.read_text().splitlines()
  for row in sizes.ROWS:
    head = f"| {row.size} | {row.num_blocks:,} | {row.hardware.name} |"
    assert sum(line.startswith(head) for line in lines) >= 1, head
