"""Curves of a run as inline SVG, for a page that needs no network.

Lines have mid tones that read on white and on black; text and axes take the
colour of the page around them (`currentColor`), so a dark page is no trouble.
"""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]

_INK = "#010203"  # no line has it: it becomes currentColor
_LINES = ("#2f8fd8", "#e07b39", "#3aa66b", "#b46ad0", "#c2a21f", "#d65a7c")
_MAX_POINTS = 600  # a curve of a long run is thinned to so many
_NOISY = 100  # points from which on a running mean is drawn over the curve
_STYLE = {
  "svg.fonttype": "none",
  "svg.hashsalt": "realm-jax",  # the same data gives the same bytes
  "text.parse_math": False,  # a name with a $ in it is a name
  "font.size": 9,
  "text.color": _INK,
  "axes.labelcolor": _INK,
  "axes.edgecolor": _INK,
  "xtick.color": _INK,
  "ytick.color": _INK,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.prop_cycle": mpl.cycler(color=_LINES),
}


def curves_svg(
  series: Series,
  *,
  x_label: str,
  y_label: str,
  errors: Mapping[str, Sequence[float]] | None = None,
) -> str:
  """Draws curves.

  Args:
    series: {name: (x, y)}; NaN leaves a gap.
    x_label: what x is, with its unit.
    y_label: what y is, with its unit.
    errors: {name: standard error at each x}, drawn as a band.

  Returns:
    One `<svg>` element.
  """
  with mpl.rc_context(_STYLE):
    figure = Figure(figsize=(5.4, 2.7), layout="constrained")
    axes = figure.add_subplot()
    for name, (x, y) in series.items():
      _draw(axes, name, x, y, (errors or {}).get(name))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color="#888888", alpha=0.25, linewidth=0.6)
    if len(series) > 1:
      axes.legend(frameon=False, fontsize=8)
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
  return _inline(out.getvalue())


def _draw(axes, name, x, y, error):
  x, y = np.asarray(x, float), np.asarray(y, float)
  keep = _thin(len(x))
  noisy = len(x) > _NOISY
  mean = running_mean(y, len(y) // 25) if noisy else y
  (line,) = axes.plot(
    x[keep],
    mean[keep],
    label=name,
    linewidth=1.4,
    marker="." if len(keep) <= 40 else None,
  )
  color = line.get_color()
  if noisy:
    axes.plot(x[keep], y[keep], color=color, alpha=0.3, linewidth=0.7)
  if error is not None:
    error = np.asarray(error, float)
    low, high = (y - error)[keep], (y + error)[keep]
    axes.fill_between(x[keep], low, high, color=color, alpha=0.2, linewidth=0)


def running_mean(y: np.ndarray, width: int) -> np.ndarray:
  """Mean over `width` neighbours on both sides (fewer at the ends), [n]."""
  window = np.ones(2 * width + 1)
  count = np.convolve(np.ones(len(y)), window, mode="full")
  total = np.convolve(y, window, mode="full")
  return (total / count)[width : width + len(y)]


def _thin(count: int) -> np.ndarray:
  """Which of `count` points are drawn, the first and the last among them."""
  return np.unique(
    np.linspace(0, count - 1, min(count, _MAX_POINTS)).astype(int)
  )


def _inline(svg: str) -> str:
  """The bare element: no prolog, no ids but those referred to."""
  svg = svg[svg.index("<svg") :].strip()
  svg = re.sub(r'<g id="[^"]*"', "<g", svg)
  return svg.replace(_INK, "currentColor")
