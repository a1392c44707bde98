"""Inverse cloze task: a sentence is the query, its block the positive.

As ORQA's ict_dataset does it, the sentence is taken out of its block with
probability mask_rate, so that the retriever learns more than word overlap but
does not forget it. Ours: a share of the queries has the wordpieces of the
block's title masked, as salient span masking hides names in pre-training; a
block is then found by what is said of it and not by its name alone.
"""

import numpy as np

from realm_jax import types
from realm_jax.config import InputError
from realm_jax.data import features
from realm_jax.data.blocks import BlockStore
from realm_jax.data.ragged import take_rows
from realm_jax.data.tokenizer import Tokenizer


class IctExamples:
  """The blocks of a store, one random sentence of each as the query.

  Args:
    store: the blocks.
    tokenizer: the one the store was made with.
    query_len: Q.
    block_len: C that the embedder reads.
    mask_rate: probability that the sentence is taken out of its block.
    hide_title: share of the queries in which the wordpieces of their block's
      title are [MASK].
    min_sentence_len: sentences of fewer wordpieces ask nothing and are never
      queries.
    keep_single: whether a block of one sentence stays (with its sentence in
      it); the original drops it.
    skip: numbers of the store's sentences that are held out of training.

  Raises:
    InputError: a bad mask_rate or hide_title, or no sentence can be a query.
  """

  def __init__(
    self,
    store: BlockStore,
    tokenizer: Tokenizer,
    *,
    query_len: int,
    block_len: int,
    mask_rate: float,
    hide_title: float = 0.0,
    min_sentence_len: int = 4,
    keep_single: bool = True,
    skip: np.ndarray | None = None,
  ):
    features.check_length("query_len", query_len, 2)
    features.check_length("block_len", block_len, 3)
    for name, rate in (("mask_rate", mask_rate), ("hide_title", hide_title)):
      if not 0 <= rate <= 1:
        raise InputError(f"config {name}={rate}: wanted 0 to 1")
    self._store, self._tokenizer = store, tokenizer
    self._query_len, self._block_len = query_len, block_len
    self._mask_rate, self._hide_title = mask_rate, hide_title
    block, start, length = store.sentence_table()
    self._single = np.bincount(block, minlength=len(store)) == 1
    usable = length >= min_sentence_len
    if skip is not None:
      usable[skip] = False
    if not keep_single:
      usable &= ~self._single[block]
    self._start, self._len = start[usable], length[usable]
    self._blocks, self._first, self._num_sentences = np.unique(
      block[usable], return_index=True, return_counts=True
    )
    if not len(self._blocks):
      raise InputError(
        f"no sentence of the {len(store)} blocks can be an ICT query: all are"
        f" shorter than {min_sentence_len} wordpieces or held out"
      )

  def __len__(self) -> int:
    return len(self._blocks)

  def rows(self, positions: np.ndarray, uniform: np.ndarray) -> types.IctBatch:
    """The batch of some blocks.

    Args:
      positions: [B] numbers below len(self).
      uniform: [B, 3] in [0, 1): chooses the sentence, whether it stays, and
        whether the title is hidden in it.
    """
    block = self._blocks[positions]
    choice = uniform[:, 0] * self._num_sentences[positions]
    sentence = self._first[positions] + choice.astype(np.int64)
    start, length = self._start[sentence], self._len[sentence]
    removed = (uniform[:, 1] < self._mask_rate) & ~self._single[block]
    return types.IctBatch(
      query=self._queries(
        block, start, length, uniform[:, 2] < self._hide_title
      ),
      block=self._block_inputs(block, start, np.where(removed, length, 0)),
      example_ids=block.astype(np.int64),
    )

  def _queries(
    self,
    block: np.ndarray,
    start: np.ndarray,
    length: np.ndarray,
    hidden: np.ndarray,
  ) -> types.Inputs:
    tokens = self._store.tokens
    first, title_lens = tokens.offsets[block], self._store.title_lens[block]
    width = self._query_len - 2
    ids = take_rows(
      tokens.flat, first + title_lens + start, length, width, fill=0
    )
    if hidden.any():
      widest = int(title_lens.max())
      titles = take_rows(
        tokens.flat, first, title_lens, widest, fill=self._tokenizer.pad_id
      )
      named = (ids[:, :, None] == titles[:, None]).any(-1) & hidden[:, None]
      ids = np.where(named, self._tokenizer.mask_id, ids)
    return features.query_rows(ids, length, self._query_len, self._tokenizer)

  def _block_inputs(
    self, block: np.ndarray, start: np.ndarray, removed: np.ndarray
  ) -> types.Inputs:
    """Block rows with `removed` wordpieces of the body at `start` cut out."""
    tokens = self._store.tokens
    first = tokens.offsets[block]
    title_lens = self._store.title_lens[block]
    lens = tokens.offsets[block + 1] - first - removed
    at = np.arange(self._block_len - 3)
    gap = at >= (title_lens + start)[:, None]
    source = first[:, None] + at + gap * removed[:, None]
    ids = tokens.flat[np.minimum(source, len(tokens.flat) - 1)]
    return features.block_rows(
      ids, title_lens, lens, self._block_len, self._tokenizer
    )
