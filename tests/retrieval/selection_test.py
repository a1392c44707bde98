"""The k largest by bisection against a stable NumPy sort."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realm_jax.retrieval import selection


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
  monkeypatch.setattr(selection, "MANY", 2)


@functools.cache
def compiled(k):
  """Traced where few are many."""
  return jax.jit(lambda x: (selection.largest(x, k, True),
                            selection.places(x, k, True)))  # fmt: skip


@settings(max_examples=30)
@given(
  w_and_k=st.sampled_from([(33, 33), (100, 7), (257, 64), (64, 63)]),
  spread=st.sampled_from([0, 1, 5, 1000]),
  seed=st.integers(0, 1000),
)
def test_the_first_of_equals(w_and_k, spread, seed):
  (w, k), rng = w_and_k, np.random.default_rng(seed)
  values = rng.integers(-spread, spread + 1, (w, 3)) * np.float32(0.37)
  values = np.where(rng.random((w, 3)) < 0.2, -np.inf, values + 0)
  values = values.astype(np.float32)
  values[:, 2] = rng.standard_normal(w)
  want = np.argsort(-values, axis=0, kind="stable")[:k]
  (found, at), places = compiled(k)(values)
  np.testing.assert_array_equal(at, want)
  np.testing.assert_array_equal(found, np.take_along_axis(values, want, 0))
  np.testing.assert_array_equal(places, np.sort(want, axis=0))


def test_the_whole_range_of_floats():
  big = np.finfo(np.float32).max
  column = [-np.inf, -big, -1e-30, 0, 1e-30, 1, big, np.inf]
  values = np.array([column], np.float32).T
  (found, at), _ = compiled(8)(values)
  np.testing.assert_array_equal(found[:, 0], values[::-1, 0])
  np.testing.assert_array_equal(at[:, 0], np.arange(8)[::-1])


@pytest.mark.parametrize("slack", [0, 9])
def test_so_many_reach_the_edge(slack):
  values = np.random.default_rng(0).standard_normal((1003, 4), np.float32)
  values[40:, 3] = -np.inf
  values[:90, 2] = 5
  edge = np.asarray(selection.edge(values, 60, slack))
  count = (values >= edge).sum(0)
  assert (count[:2] >= 60).all() and (count[:2] <= 60 + slack).all()
  assert count[2] == 90 and edge[2] <= 5  # equals, all of them
  assert np.isneginf(edge[3])
