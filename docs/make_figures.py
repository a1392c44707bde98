"""Draws docs/figures/ from a run's metrics.jsonl: how the index follows.

  python docs/make_figures.py RUN

RUN is the workdir of a pre-training. The same run gives the same bytes.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.evals import plots
from realm_jax.train import metrics

FIGURES = pathlib.Path(__file__).parent / "figures"


class Figure(NamedTuple):
  """One figure: metric -> its name in the legend, and the y axis."""

  metrics: dict[str, str]
  y_label: str


ALL = {
  "staleness": Figure(
    {"index_staleness": "staleness"}, "age of the index, steps"
  ),
  "overlap": Figure(
    {"swap_overlap": "overlap"}, "best blocks kept by a swap, share"
  ),
  "utility": Figure(
    {"retrieval_utility": "training", "dev/retrieval_utility": "held out"},
    "retrieval utility, nats",
  ),
}


def main(arguments: Sequence[str]) -> None:
  """Writes the figures."""
  if len(arguments) != 1:
    raise SystemExit(__doc__)
  try:
    drawn = draw(arguments[0])
  except InputError as e:
    raise SystemExit(f"error: {e}") from e
  FIGURES.mkdir(exist_ok=True)
  for name, svg in drawn.items():
    with files.atomic_publish(FIGURES / f"{name}.svg") as tmp:
      tmp.write_text(svg + "\n")


def draw(workdir: str) -> dict[str, str]:
  """Name -> SVG of each figure.

  Raises:
    InputError: no run, or one without an index.
  """
  lines = metrics.read_metrics(workdir)
  drawn = {}
  for name, figure in ALL.items():
    series = {
      label: _curve(lines, metric) for metric, label in figure.metrics.items()
    }
    if not any(x for x, _ in series.values()):
      raise InputError(f"{workdir}: metrics.jsonl has no {', '.join(series)}")
    drawn[name] = plots.curves_svg(
      series, x_label="step", y_label=figure.y_label
    )
  return drawn


def _curve(lines, metric) -> tuple[list[int], list[float]]:
  """x and y, without the points that lie straight between their neighbours."""
  points = [(line["step"], line[metric]) for line in lines if metric in line]
  kept = points[:1]
  for before, point, after in zip(points, points[1:], points[2:], strict=False):
    if after[1] - point[1] != point[1] - before[1]:
      kept.append(point)
  kept += points[1:][-1:]
  return [x for x, _ in kept], [y for _, y in kept]


if __name__ == "__main__":
  main(sys.argv[1:])
