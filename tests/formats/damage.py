"""Files damaged at random, and memory counted."""

import contextlib
import pathlib
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from realm_jax.config import InputError

NUM_DAMAGED = 200


def damaged(data: bytes, seed: int) -> Iterator[tuple[bytes, int]]:
  """Three files in four with one byte changed, one in four cut off.

  Yields (bytes, position of the changed byte, or -1).
  """
  rng = np.random.default_rng(seed)
  for i in range(NUM_DAMAGED):
    position = int(rng.integers(len(data)))
    if i % 4 == 0:
      yield data[:position], -1
    else:
      other = bytes([data[position] ^ int(rng.integers(1, 256))])
      yield data[:position] + other + data[position + 1 :], position


def read_damaged(
  path: pathlib.Path, seed: int, read: Callable[[pathlib.Path], Any]
) -> Iterator[tuple[Any, bytes, int]]:
  """What is read in spite of the damage: (value, bytes, position).

  The rest must end in an InputError of one line that names the file. `path`
  is whole again at the end.
  """
  whole = path.read_bytes()
  num_refused = 0
  for data, position in damaged(whole, seed):
    path.write_bytes(data)
    try:
      value = read(path)
    except InputError as e:
      num_refused += 1
      assert str(path.parent) in str(e)
      assert str(e).isprintable() and len(str(e)) < 600
      continue
    yield value, data, position
  path.write_bytes(whole)
  assert num_refused > NUM_DAMAGED / 8  # a cut is always seen, or nearly


@contextlib.contextmanager
def little_memory(limit: int = 4 << 20) -> Iterator[None]:
  """Fails if the body allocates more than `limit` bytes at a time."""
  tracemalloc.start()
  try:
    yield
    assert tracemalloc.get_traced_memory()[1] < limit
  finally:
    tracemalloc.stop()
