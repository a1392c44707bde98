"""Pre-training texts: wordpieces with their salient spans, ready to mask.

A record is one sentence (or line) with at least one span. Preparation writes
records as ragged arrays (text_writer); MaskedTexts reads them a batch at a time
and picks one span of each record anew every epoch.
"""

import os
import pathlib
from typing import Any

import numpy as np

from realm_jax import files, types
from realm_jax.config import InputError
from realm_jax.data import features, masking
from realm_jax.data.masking import SALIENT, Masking
from realm_jax.data.ragged import Ragged, open_array, take_rows
from realm_jax.data.text_writer import SPLITS
from realm_jax.data.tokenizer import Tokenizer


class MaskedTexts:
  """The records of one split that have a span which fits the query, masked.

  They are the same records for every kind of masking.

  Raises:
    InputError: the store belongs to another tokenizer.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    split: str,
    tokenizer: Tokenizer,
    *,
    query_len: int,
    max_masks: int,
    masking: Masking = SALIENT,
  ):
    features.check_length("query_len", query_len, 2)
    directory = pathlib.Path(directory)
    meta = files.read_json(directory / "meta.json")
    check_tokenizer(directory, meta, tokenizer)
    self._sizes = {"query_len": query_len, "max_masks": max_masks}
    self._tokenizer, self._masking = tokenizer, masking
    self._tokens = Ragged(directory, "tokens")
    self._own = open_array(directory / "own_block.npy")
    self._gold = open_array(directory / "gold_block.npy")
    spans = Ragged(directory, "spans")
    pairs = spans.flat.reshape(-1, 2)
    record = np.repeat(np.arange(len(spans)), spans.lens() // 2)
    of_split = open_array(directory / "split.npy") == SPLITS.index(split)
    usable = (pairs[:, 1] <= query_len - 2) & of_split[record]
    self._spans = pairs[usable]
    self._records, self._first, self._num_spans = np.unique(
      record[usable], return_index=True, return_counts=True
    )

  def __len__(self) -> int:
    return len(self._records)

  def rows(
    self, positions: np.ndarray, uniform: np.ndarray
  ) -> types.PretrainBatch:
    """The batch of some records.

    Args:
      positions: [B] numbers below len(self); a negative one makes a row
        without targets and with example id -1.
      uniform: [B, 3] in [0, 1), chooses the masks.
    """
    real = positions >= 0
    positions = np.maximum(positions, 0)
    record = self._records[positions]
    choice = uniform[:, 0] * self._num_spans[positions]
    span = self._spans[self._first[positions] + choice.astype(np.int64)]
    starts = self._tokens.offsets[record]
    lens = self._tokens.offsets[record + 1] - starts
    width = self._sizes["query_len"] - 2
    ids = take_rows(
      self._tokens.flat, starts, lens, width, fill=self._tokenizer.pad_id
    )
    masked = self._mask(ids, lens, span, uniform[:, 1])
    return types.PretrainBatch(
      query=masked.query,
      mlm_positions=masked.positions,
      mlm_targets=masked.targets,
      mlm_mask=masked.mask * real[:, None].astype(np.int32),
      own_block=np.where(real, self._own[record], -1).astype(np.int32),
      gold_block=np.where(real, self._gold[record], -1).astype(np.int32),
      example_ids=np.where(real, record, -1).astype(np.int64),
    )

  def _mask(self, ids, lens, span, uniform) -> masking.Masked:
    sizes = {**self._sizes, "tokenizer": self._tokenizer}
    kind = self._masking.kind
    if kind == "uniform":
      return masking.mask_anywhere(
        ids, lens, uniform, share=self._masking.share, **sizes
      )
    if kind == "span":
      seen = np.minimum(lens, ids.shape[1])
      span = masking.move_spans(span, seen, uniform)
    return masking.mask_spans(ids, lens, span, **sizes)


def check_tokenizer(
  directory: pathlib.Path, meta: dict[str, Any], tokenizer: Tokenizer
) -> None:
  """InputError unless `directory` was made with this tokenizer."""
  if meta["tokenizer_hash"] != tokenizer.hash:
    raise InputError(
      f"{directory}: made with the vocabulary {meta['tokenizer_hash'][:12]},"
      f" but the tokenizer is {tokenizer.hash[:12]}: prepare the data again"
    )
