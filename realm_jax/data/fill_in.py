"""Texts in which a person wrote [MASK], as queries for the encoder.

In a corpus "[MASK]" is plain text; only here, where somebody asks for it to be
filled in, it becomes the mask wordpiece.
"""

from collections.abc import Sequence

import numpy as np

from realm_jax import types
from realm_jax.config import InputError
from realm_jax.data import features
from realm_jax.data.tokenizer import Tokenizer

MASK = "[MASK]"


def fill_in_batch(
  texts: Sequence[str],
  tokenizer: Tokenizer,
  *,
  query_len: int,
  max_masks: int,
) -> types.PretrainBatch:
  """Builds queries with a mask wordpiece for each [MASK].

  Args:
    texts: B of them, one [MASK] for each wordpiece to be filled in; "" makes
      a row that only fills the batch.
    tokenizer: of the run.
    query_len: Q.
    max_masks: M.

  Returns:
    PretrainBatch of NumPy arrays; mlm_mask [B, M] tells where the masks are,
    the targets aren't known (0).

  Raises:
    InputError: a text without [MASK], with more than M of them, or with one
      beyond the Q wordpieces that are read.
  """
  rows = [_encode(text, tokenizer) for text in texts]
  positions = np.zeros((len(rows), max_masks), np.int32)
  mask = np.zeros_like(positions)
  for b, (text, row) in enumerate(zip(texts, rows, strict=True)):
    places = np.flatnonzero(np.array(row, int) == tokenizer.mask_id) + 1
    _check(text, places, query_len, max_masks)
    positions[b, : len(places)] = places
    mask[b, : len(places)] = 1
  nowhere = np.full(len(rows), -1, np.int32)
  return types.PretrainBatch(
    query=features.query_inputs(rows, query_len, tokenizer),
    mlm_positions=positions,
    mlm_targets=np.zeros_like(positions),
    mlm_mask=mask,
    own_block=nowhere,
    gold_block=nowhere,
    example_ids=np.arange(len(rows), dtype=np.int64),
  )


def _encode(text: str, tokenizer: Tokenizer) -> list[int]:
  first, *others = tokenizer.encode_batch(text.split(MASK))
  row = list(first)
  for part in others:
    row += [tokenizer.mask_id, *part]
  return row


def _check(
  text: str, places: np.ndarray, query_len: int, max_masks: int
) -> None:
  if not text:
    return
  if not len(places):
    raise InputError(f"{text[:60]!r} has no {MASK}: write one to be filled in")
  if len(places) > max_masks:
    raise InputError(
      f"{text[:60]!r} has {len(places)} times {MASK}, but this run fills in at"
      f" most max_masks={max_masks}"
    )
  if places[-1] > query_len - 2:
    raise InputError(
      f"{text[:60]!r}: a {MASK} lies beyond the query_len={query_len}"
      " wordpieces that are read: make the text shorter"
    )
