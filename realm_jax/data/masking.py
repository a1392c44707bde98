"""Salient span masking: one span of a text hidden, its wordpieces the target.

As the original's featurizer does it: every wordpiece of the span becomes
[MASK], without BERT's 80/10/10; targets beyond max_masks are cut, so those
wordpieces stay hidden but bring no loss.
"""

from typing import NamedTuple

import numpy as np

from realm_jax import types
from realm_jax.data import features
from realm_jax.data.tokenizer import Tokenizer


class Masked(NamedTuple):
  """Masked queries: query [B, Q]; positions, targets, mask [B, M]."""

  query: types.Inputs
  positions: np.ndarray
  targets: np.ndarray
  mask: np.ndarray


def mask_spans(
  token_ids: np.ndarray,
  lens: np.ndarray,
  spans: np.ndarray,
  *,
  query_len: int,
  max_masks: int,
  tokenizer: Tokenizer,
) -> Masked:
  """Hides one span of each text.

  Args:
    token_ids: [B, Q - 2] wordpieces, padded.
    lens: [B] wordpieces of each text.
    spans: [B, 2] first and last + 1 wordpiece of the span; it ends within
      the first Q - 2.
    query_len: Q.
    max_masks: M.
    tokenizer: names the specials.

  Returns:
    Masked; a position is the wordpiece's index + 1 for the [CLS] before it.
  """
  starts, ends = spans[:, :1], spans[:, 1:]
  at = np.arange(token_ids.shape[1])
  hidden = np.where((at >= starts) & (at < ends), tokenizer.mask_id, token_ids)
  index = starts + np.arange(max_masks)
  mask = (index < ends).astype(np.int32)
  index = np.minimum(index, token_ids.shape[1] - 1)
  targets = np.take_along_axis(token_ids, index, axis=1)
  return Masked(
    query=features.query_rows(hidden, lens, query_len, tokenizer),
    positions=((index + 1) * mask).astype(np.int32),
    targets=(targets * mask).astype(np.int32),
    mask=mask,
  )
