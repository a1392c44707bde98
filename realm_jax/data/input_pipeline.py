"""Prepared data to batches, through Grain iterators that can be checkpointed.

An element of each Grain source is a whole batch: row g of all rows that will
ever be drawn is a pure function of (seed, g), built with a few NumPy gathers.
That is many times faster than Python per record, it is the same whatever the
number of processes, and the iterator's state is one number.
"""

import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

import grain
import jax
import numpy as np

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data import ict, qa, texts
from realm_jax.data.blocks import BlockStore
from realm_jax.data.tokenizer import load_tokenizer

_FOREVER = 1 << 40  # batches of an iterator that repeats
_MIX = 1000  # rows after which the pattern of a mixture repeats
_PREFETCH = 4  # batches made ahead by the one thread


class Examples(Protocol):
  """What a source draws rows from: IctExamples, MaskedTexts, QaExamples."""

  def __len__(self) -> int: ...

  def rows(self, positions: np.ndarray, uniform: np.ndarray) -> Any: ...


def ict_batches(
  data_dir: str | os.PathLike,
  *,
  batch_size: int,
  query_len: int,
  block_len: int,
  mask_rate: float,
  seed: int,
  min_sentence_len: int = 4,
  keep_single: bool = True,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator:
  """Endless IctBatch; see ict.IctExamples for the arguments.

  batch_size is that of all processes; each gets its own rows of a batch.
  """
  data_dir = pathlib.Path(data_dir)
  examples = ict.IctExamples(
    load_blocks(data_dir),
    load_tokenizer(data_dir / "tokenizer"),
    query_len=query_len,
    block_len=block_len,
    mask_rate=mask_rate,
    min_sentence_len=min_sentence_len,
    keep_single=keep_single,
    skip=np.load(data_dir / "held_out_sentences.npy"),
  )
  rows = _my_rows(batch_size, process_index, process_count)
  return _iterate(_TrainSource([examples], [1.0], batch_size, rows, seed))


def pretrain_batches(
  data_dir: str | os.PathLike,
  *,
  batch_size: int,
  query_len: int,
  max_masks: int,
  weights: Sequence[float],
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator:
  """Endless PretrainBatch mixed from the text sources by their weights.

  Each source is gone through in a new order every epoch, without replacement.
  """
  sources = _masked_texts(data_dir, "train", query_len, max_masks)
  if len(weights) != len(sources):
    raise InputError(
      f"config data.text_weights={tuple(weights)}: wanted one weight for each"
      f" of the {len(sources)} text sources"
    )
  rows = _my_rows(batch_size, process_index, process_count)
  return _iterate(_TrainSource(sources, weights, batch_size, rows, seed))


def qa_batches(
  data_dir: str | os.PathLike,
  split: str,
  *,
  batch_size: int,
  query_len: int,
  max_answers: int,
  max_answer_len: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator:
  """Endless QaBatch of a split."""
  examples = _questions(data_dir, split, query_len, max_answers, max_answer_len)
  rows = _my_rows(batch_size, process_index, process_count)
  return _iterate(_TrainSource([examples], [1.0], batch_size, rows, seed))


def pretrain_eval_batches(
  data_dir: str | os.PathLike,
  split: str,
  *,
  batch_size: int,
  query_len: int,
  max_masks: int,
) -> grain.DatasetIterator:
  """Each held-out text once, in order, the same span masked every time.

  These are the title-masked lines of the held-out leads, or, without leads,
  a tenth of the texts by hash. The last batch is filled up with rows whose
  example id is -1.
  """
  sources = _masked_texts(data_dir, split, query_len, max_masks)
  return _iterate(_EvalSource(sources, batch_size))


def qa_eval_batches(
  data_dir: str | os.PathLike,
  split: str,
  *,
  batch_size: int,
  query_len: int,
  max_answers: int,
  max_answer_len: int,
) -> grain.DatasetIterator:
  """Each question of a split once, in the file's order, filled up with -1.

  The example id is the question's number in qa/<split>.jsonl.
  """
  examples = _questions(data_dir, split, query_len, max_answers, max_answer_len)
  return _iterate(_EvalSource([examples], batch_size))


def load_blocks(data_dir: str | os.PathLike) -> BlockStore:
  """The block store of a prepared directory, checked against its tokenizer."""
  data_dir = pathlib.Path(data_dir)
  store = BlockStore(data_dir / "blocks")
  texts.check_tokenizer(
    data_dir / "blocks", store.meta, load_tokenizer(data_dir / "tokenizer")
  )
  return store


def _masked_texts(
  data_dir: str | os.PathLike, split: str, query_len: int, max_masks: int
) -> list[texts.MaskedTexts]:
  data_dir = pathlib.Path(data_dir)
  tokenizer = load_tokenizer(data_dir / "tokenizer")
  num_texts = files.read_json(data_dir / "manifest.json")["num_texts"]
  sources = [
    texts.MaskedTexts(
      data_dir / "text" / str(i),
      split,
      tokenizer,
      query_len=query_len,
      max_masks=max_masks,
    )
    for i in range(num_texts)
  ]
  for i, source in enumerate(sources):
    if split == "train" and not len(source):
      raise InputError(
        f"{data_dir}/text/{i}: no salient span ends within query_len="
        f"{query_len}: make query_len larger"
      )
  return sources


def _questions(
  data_dir: str | os.PathLike,
  split: str,
  query_len: int,
  max_answers: int,
  max_answer_len: int,
) -> qa.QaExamples:
  data_dir = pathlib.Path(data_dir)
  path = data_dir / "qa" / f"{split}.jsonl"
  if not path.exists():
    raise InputError(
      f'{path}: no such questions; prepare the data with data.qa="leads" or'
      f" with data.qa_{split}=FILE"
    )
  return qa.QaExamples(
    qa.read_qa(path),
    load_tokenizer(data_dir / "tokenizer"),
    query_len=query_len,
    max_answers=max_answers,
    max_answer_len=max_answer_len,
  )


def _my_rows(batch_size: int, process_index: int, process_count: int) -> slice:
  if batch_size < 1 or batch_size % process_count:
    raise InputError(
      f"config train.batch_size={batch_size}: wanted a multiple of the"
      f" {process_count} processes"
    )
  share = batch_size // process_count
  return slice(process_index * share, (process_index + 1) * share)


def _iterate(source: Any) -> grain.DatasetIterator:
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCH)
  dataset = grain.MapDataset.source(source).to_iter_dataset(options)
  return iter(dataset)


class _TrainSource:
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
    self._pattern = _mixture(np.asarray(weights, np.float64))
    drawn = self._pattern[:, None] == np.arange(len(sources))
    self._before = np.cumsum(drawn, axis=0) - drawn  # [_MIX, sources]
    self._a_round = drawn.sum(axis=0)

  def __len__(self) -> int:
    return _FOREVER

  def __getitem__(self, step: int) -> Any:
    number = (step * self._batch_size + np.arange(self._batch_size))[self._rows]
    rng = np.random.default_rng([self._seed, 0, step])
    uniform = rng.random((self._batch_size, 2))[self._rows]
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


class _EvalSource:
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
    uniform = np.random.default_rng([0, 1, step]).random((self._batch_size, 2))
    return _named(source.rows(positions, uniform), i)


@functools.lru_cache(maxsize=8)
def _epoch_order(seed: int, source: int, epoch: int, size: int) -> np.ndarray:
  rng = np.random.default_rng([seed, 1, source, epoch])
  return rng.permutation(size).astype(np.int64)


def _mixture(weights: np.ndarray) -> np.ndarray:
  """[_MIX] source of each row, every prefix as near the weights as can be."""
  if not len(weights) or weights.min() < 0 or not weights.sum() > 0:
    raise InputError(
      f"config data.text_weights={tuple(weights)}: wanted weights >= 0, one of"
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
