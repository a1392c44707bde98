"""Prepared data to batches, through Grain iterators that can be checkpointed.

An element of each Grain source is a whole batch: row g of all rows that will
ever be drawn is a pure function of (seed, g), built with a few NumPy gathers.
That is many times faster than Python per record, it is the same whatever the
number of processes, and the iterator's state is one number.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data import batch_sources, ict, qa, text_store
from realm_jax.data.blocks import BlockStore
from realm_jax.data.masking import SALIENT, Masking
from realm_jax.data.tokenizer import load_tokenizer

_PREFETCH = 4  # batches made ahead by the one thread


def ict_batches(
  data_dir: str | os.PathLike,
  *,
  batch_size: int,
  query_len: int,
  block_len: int,
  mask_rate: float,
  seed: int,
  hide_title: float = 0.0,
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
    hide_title=hide_title,
    min_sentence_len=min_sentence_len,
    keep_single=keep_single,
    skip=np.load(data_dir / "held_out_sentences.npy"),
  )
  rows = _my_rows(batch_size, process_index, process_count)
  return _iterate(
    batch_sources.TrainSource([examples], [1.0], batch_size, rows, seed)
  )


def pretrain_batches(
  data_dir: str | os.PathLike,
  *,
  batch_size: int,
  query_len: int,
  max_masks: int,
  weights: Sequence[float],
  seed: int,
  masking: Masking = SALIENT,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator:
  """Endless PretrainBatch mixed from the text sources by their weights.

  Each source is gone through in a new order every epoch, without replacement;
  the same texts in the same order, however they are masked.
  """
  sources = _masked_texts(data_dir, "train", query_len, max_masks, masking)
  if len(weights) != len(sources):
    raise InputError(
      f"config text_weights={tuple(weights)}: wanted one weight for each of"
      f" the {len(sources)} sources in data.text, such as"
      f" --config.text_weights={(1.0,) * len(sources)}"
    )
  rows = _my_rows(batch_size, process_index, process_count)
  return _iterate(
    batch_sources.TrainSource(sources, weights, batch_size, rows, seed)
  )


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
  return _iterate(
    batch_sources.TrainSource([examples], [1.0], batch_size, rows, seed)
  )


def pretrain_eval_batches(
  data_dir: str | os.PathLike,
  split: str,
  *,
  batch_size: int,
  query_len: int,
  max_masks: int,
) -> grain.DatasetIterator:
  """Each held-out text once, in order, the same salient span masked each time.

  These are the title-masked lines of the held-out leads, or, without leads,
  a tenth of the texts by hash. The last batch is filled up with rows whose
  example id is -1.
  """
  sources = _masked_texts(data_dir, split, query_len, max_masks)
  return _iterate(batch_sources.EvalSource(sources, batch_size))


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
  return _iterate(batch_sources.EvalSource([examples], batch_size))


def load_blocks(data_dir: str | os.PathLike) -> BlockStore:
  """The block store of a prepared directory, checked against its tokenizer."""
  data_dir = pathlib.Path(data_dir)
  store = BlockStore(data_dir / "blocks")
  text_store.check_tokenizer(
    data_dir / "blocks", store.meta, load_tokenizer(data_dir / "tokenizer")
  )
  return store


def _masked_texts(
  data_dir: str | os.PathLike,
  split: str,
  query_len: int,
  max_masks: int,
  masking: Masking = SALIENT,
) -> list[text_store.MaskedTexts]:
  data_dir = pathlib.Path(data_dir)
  tokenizer = load_tokenizer(data_dir / "tokenizer")
  num_texts = files.read_json(data_dir / "manifest.json")["num_texts"]
  sources = [
    text_store.MaskedTexts(
      data_dir / "text" / str(i),
      split,
      tokenizer,
      query_len=query_len,
      max_masks=max_masks,
      masking=masking,
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
