"""Intervals and p-values against the formulas, by hand and by simulation."""

import itertools
import math

import numpy as np
import pytest

from realm_jax.evals import uncertainty


def test_the_interval_of_a_mean_is_the_normal_one():
  rng = np.random.default_rng(1)
  values = rng.normal(size=400)
  (interval,) = uncertainty.intervals({"x": values}, 4000).values()
  error = values.std() / 20
  expected = (values.mean() - 1.96 * error, values.mean() + 1.96 * error)
  assert interval == pytest.approx(expected, abs=0.15 * error)


def test_questions_that_are_not_judged_are_not_drawn():
  values = np.array([1.0, 0.0, 1.0, 1.0, 0.0] * 9)
  padded = np.concatenate([values, np.full(200, np.nan)])
  found = uncertainty.intervals({"x": padded, "none": padded * np.nan}, 3000)
  (alone,) = uncertainty.intervals({"x": values}, 3000).values()
  assert found["x"] == pytest.approx(alone, abs=0.05)
  assert all(map(math.isnan, found["none"]))
  assert uncertainty.intervals({}, 7) == {}


def test_intervals_are_the_same_every_time():
  values = {"x": np.arange(7.0)}
  once = uncertainty.intervals(values, 250)
  assert once == uncertainty.intervals(values, 250)
  assert once != uncertainty.intervals(values, 250, seed=1)


def test_mcnemar_is_the_coin():
  """Of 9 questions that the runs differ in, b alone has 8 right."""
  a = np.array([1.0] * 5 + [0.0] * 7 + [1.0] + [0.0] * 8)
  b = np.array([1.0] * 5 + [0.0] * 7 + [0.0] + [1.0] * 8)
  p, test = uncertainty.p_value(a, b, 100)
  assert test == "McNemar"
  assert p == pytest.approx(2 * (1 + 9) / 2**9)
  assert uncertainty.p_value(a, a, 100) == (1.0, "McNemar")


def test_randomisation_is_exact_for_few_questions():
  a = np.array([0.1, 0.5, 0.25, 0.9, 0.4, 0.0])
  b = np.array([0.4, 0.45, 0.75, 1.0, 0.6, 0.8])
  gains = b - a
  swapped = [
    np.mean(np.array(signs) * gains)
    for signs in itertools.product((1, -1), repeat=6)
  ]
  expected = np.mean(np.abs(swapped) >= abs(gains.mean()) - 1e-12)
  p, test = uncertainty.p_value(a, b, 64)
  assert (p, test) == (pytest.approx(expected), "randomisation")


def test_of_one_question_no_difference_is_sure():
  one, other = ({"f1": np.array([x])} for x in (0.25, 0.75))
  d = uncertainty.differences(one, other, 50)["f1"]
  assert (d.p, d.test, d.n) == (1.0, "randomisation", 1)


def test_randomisation_draws_where_there_are_many():
  rng = np.random.default_rng(3)
  a = rng.random(90)
  assert uncertainty.p_value(a, a + 0.1, 999)[0] == pytest.approx(2 / 1000)
  p, _ = uncertainty.p_value(a, rng.permutation(a), 999)
  assert p > 0.05


def test_differences_are_paired():
  rng = np.random.default_rng(0)
  hard = rng.normal(size=60)  # what both runs find equally hard
  gain = 0.1 + 0.05 * rng.normal(size=60)
  a = {"f1": hard, "only_a": hard, "none": hard * np.nan}
  b = {"f1": hard + gain, "none": hard, "only_b": hard}
  b["f1"][7] = np.nan
  found = uncertainty.differences(a, b, 500)
  assert list(found) == ["f1"]
  d, kept = found["f1"], np.arange(60) != 7
  assert d.n == 59
  assert d.b - d.a == pytest.approx(gain[kept].mean())
  assert 0.07 < d.low < d.b - d.a < d.high < 0.13  # alone each is +- .25
  assert d.p < 0.01
  line = uncertainty.table(found).splitlines()[1]
  assert line.split()[0] == "f1" and line.split()[-1] == "59"
