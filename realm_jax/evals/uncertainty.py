"""How sure a mean, and a difference of two runs, is.

Questions are what varies: intervals are of the percentile bootstrap over
questions (Efron), and tests are paired, question by question.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95  # of every interval
_AT_ONCE = 100  # resamples held at a time


class Difference(NamedTuple):
  """Two runs by one metric, over the questions that both have judged.

  Attributes:
    a, b: their means.
    low, high: the interval of b - a (paired bootstrap).
    p: of the hypothesis that the runs are interchangeable, two-sided.
    test: "McNemar" or "randomisation", see p_value.
    n: questions.
  """

  a: float
  b: float
  low: float
  high: float
  p: float
  test: str
  n: int


def intervals(
  columns: Mapping[str, np.ndarray], resamples: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
  """Bootstrap intervals of the means of columns over the same questions.

  Args:
    columns: {metric: [B] values, NaN = not judged}; all are resampled alike.
    resamples: how often B questions are drawn.
    seed: of the draws.

  Returns:
    {metric: (low, high)}, (NaN, NaN) where no question is judged.
  """
  if not columns:
    return {}
  values = np.stack(list(columns.values()))  # [metrics, B]
  judged = ~np.isnan(values)
  values = np.where(judged, values, 0.0)
  num_questions = values.shape[1]
  if not num_questions:
    return dict.fromkeys(columns, (np.nan, np.nan))
  rng = np.random.default_rng(seed)
  share = np.full(num_questions, 1 / num_questions)
  means = []
  for first in range(0, resamples, _AT_ONCE):
    count = min(_AT_ONCE, resamples - first)
    drawn = rng.multinomial(num_questions, share, size=count)  # [R, B]
    total = drawn @ judged.T
    with np.errstate(invalid="ignore"):  # none of the judged was drawn
      means.append(drawn @ values.T / total)
  tail = (1 - LEVEL) / 2
  bounds = np.full((2, len(values)), np.nan)
  some = judged.any(axis=1)
  bounds[:, some] = np.nanquantile(
    np.concatenate(means)[:, some], [tail, 1 - tail], axis=0
  )
  return {
    name: (float(low), float(high))
    for name, low, high in zip(columns, *bounds, strict=True)
  }


def differences(
  a: Mapping[str, np.ndarray],
  b: Mapping[str, np.ndarray],
  resamples: int,
  seed: int = 0,
) -> dict[str, Difference]:
  """Compares two runs by every metric that both have.

  Args:
    a, b: {metric: [B] values, NaN = not judged} over the same questions.
    resamples: of the bootstrap, and of a randomisation test.
    seed: of both.
  """
  common = [name for name in a if name in b]
  gains = {name: np.asarray(b[name]) - np.asarray(a[name]) for name in common}
  bounds = intervals(gains, resamples, seed)
  found = {}
  for name in common:
    judged = ~np.isnan(gains[name])
    ours, theirs = np.asarray(a[name])[judged], np.asarray(b[name])[judged]
    if judged.any():
      found[name] = Difference(
        float(ours.mean()),
        float(theirs.mean()),
        *bounds[name],
        *p_value(ours, theirs, resamples, seed),
        int(judged.sum()),
      )
  return found


def p_value(
  a: np.ndarray, b: np.ndarray, resamples: int, seed: int = 0
) -> tuple[float, str]:
  """The p-value of a paired, two-sided test, and the test's name.

  Of metrics that are right or wrong (exact match, recall) it's McNemar's exact
  test: of the questions that one run alone has right, is the share of either a
  fair coin's? Of others (F1) it's the randomisation test of the mean: how often
  is it as far from 0 when the two runs' values are swapped at random? It's
  exact where all ways to swap are no more than `resamples`.
  """
  values = np.concatenate([a, b])
  if np.isin(values, (0.0, 1.0)).all():
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    if not only_a + only_b:
      return 1.0, "McNemar"
    test = stats.binomtest(only_a, only_a + only_b)
    return float(test.pvalue), "McNemar"
  if len(a) == 1:  # which SciPy doesn't take: either way it's as far from 0
    return 1.0, "randomisation"
  result = stats.permutation_test(
    (b - a,),
    lambda x, axis: x.mean(axis=axis),
    permutation_type="samples",
    vectorized=True,
    n_resamples=resamples,
    batch=_AT_ONCE,
    rng=np.random.default_rng(seed),
  )
  return float(result.pvalue), "randomisation"


def table(found: Mapping[str, Difference], b: str = "B") -> str:
  """Differences as a person reads them, a metric a line; `b` is B's name."""
  lines = [
    f"{'':22}{'A':>8}{b:>8}{f'{b} - A':>9}{f'{LEVEL:.0%} interval':>20}{'p':>9}"
    f"  {'test':14}{'n':>6}"
  ]
  for name, d in found.items():
    interval = f"[{d.low:+.3f}, {d.high:+.3f}]"
    lines.append(
      f"{name:22}{d.a:8.3f}{d.b:8.3f}{d.b - d.a:+9.3f}{interval:>20}"
      f"{d.p:9.2g}  {d.test:14}{d.n:6}"
    )
  return "\n".join(lines)
