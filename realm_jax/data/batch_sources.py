"""Random-access sources whose every element is a whole batch.

Row g of all rows that will ever be drawn is a pure function of (seed, g), so
batches do not depend on the number of processes, and a position in the stream
is one number.
"""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from realm_jax.config import InputError

_FOREVER = 1 << 40  # batches of a source that repeats
NUM_DRAWS = 3  # random numbers that come with a row
_MIX = 1000  # rows after which the pattern of a mixture repeats


class Examples(Protocol):
  """What a source draws rows from: IctExamples, MaskedTexts, QaExamples."""

  def __len__(self) -> int: ...

  def rows(self, positions: np.ndarray, uniform: np.ndarray) -> Any: ...


class TrainSource:
  """Batch `step` of an endless, shuffled mixture of examples."""

  def __init__(
    self,
    sources: Sequence[Examples],
    weights: Sequence[float],
    batch_size: int,
    rows: slice,
    seed: int,
  ):
    self._sources, self._rows, self._seed = sources, rows, seed
    self._batch_size = batch_size
    self._pattern = mixture(np.asarray(weights, np.float64))
    drawn = self._pattern[:, None] == np.arange(len(sources))
    self._before = np.cumsum(drawn, axis=0) - drawn  # [_MIX, sources]
    self._a_round = drawn.sum(axis=0)

  def __len__(self) -> int:
    return _FOREVER

  def __getitem__(self, step: int) -> Any:
    number = (step * self._batch_size + np.arange(self._batch_size))[self._rows]
    rng = np.random.default_rng([self._seed, 0, step])
    uniform = rng.random((self._batch_size, NUM_DRAWS))[self._rows]
    rounds, place = np.divmod(number, _MIX)
    chosen = self._pattern[place]
    parts, where = [], []
    for i, source in enumerate(self._sources):
      at = np.flatnonzero(chosen == i)
      if len(at):
        drawn = rounds[at] * self._a_round[i] + self._before[place[at], i]
        positions = self._shuffled(i, drawn)
        parts.append(_named(source.rows(positions, uniform[at]), i))
        where.append(at)
    return _merge(parts, np.argsort(np.concatenate(where)))

  def _shuffled(self, source: int, drawn: np.ndarray) -> np.ndarray:
    """Where the drawn-th row of an endless shuffled pass over a source is."""
    size = len(self._sources[source])
    epochs, place = np.divmod(drawn, size)
    positions = np.empty_like(drawn)
    for epoch in np.unique(epochs):
      order = _epoch_order(self._seed, source, int(epoch), size)
      positions[epochs == epoch] = order[place[epochs == epoch]]
    return positions


class EvalSource:
  """Every example once, in order; the last batch is filled up with -1."""

  def __init__(self, sources: Sequence[Examples], batch_size: int):
    self._sources = [(i, s) for i, s in enumerate(sources) if len(s)]
    self._batch_size = batch_size
    self._batches = [
      (i, source, first)
      for i, source in self._sources
      for first in range(0, len(source), batch_size)
    ]

  def __len__(self) -> int:
    return len(self._batches)

  def __getitem__(self, step: int) -> Any:
    i, source, first = self._batches[step]
    positions = first + np.arange(self._batch_size)
    positions = np.where(positions < len(source), positions, -1)
    uniform = np.random.default_rng([0, 1, step]).random(
      (self._batch_size, NUM_DRAWS)
    )
    return _named(source.rows(positions, uniform), i)


@functools.lru_cache(maxsize=8)
def _epoch_order(seed: int, source: int, epoch: int, size: int) -> np.ndarray:
  rng = np.random.default_rng([seed, 1, source, epoch])
  return rng.permutation(size).astype(np.int64)


def mixture(weights: np.ndarray) -> np.ndarray:
  """[_MIX] source of each row, every prefix as near the weights as can be."""
  if not len(weights) or weights.min() < 0 or not weights.sum() > 0:
    raise InputError(
      f"config text_weights={tuple(weights)}: wanted weights >= 0, one of"
      " them above 0"
    )
  share = weights / weights.sum()
  pattern = np.empty(_MIX, np.int64)
  counts = np.zeros(len(weights))
  for row in range(_MIX):
    pattern[row] = np.argmax(share * (row + 1) - counts)
    counts[pattern[row]] += 1
  return pattern


def _named(batch: Any, source: int) -> Any:
  """Puts the source's number above bit 40 of the example ids."""
  ids = batch.example_ids
  return batch.replace(example_ids=np.where(ids < 0, ids, ids + (source << 40)))


def _merge(parts: list[Any], order: np.ndarray) -> Any:
  if len(parts) == 1:
    return parts[0]
  return jax.tree.map(lambda *x: np.concatenate(x)[order], *parts)
