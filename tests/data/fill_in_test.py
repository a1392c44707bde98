"""Masks written by hand land where they were written."""

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data import fill_in, tokenizer


@pytest.fixture(scope="module")
def words():
  text = "the capital of france is paris and the seine runs through it"
  return tokenizer.train_wordpiece([text] * 3, vocab_size=80)


def test_masks_become_mask_wordpieces(words):
  batch = fill_in.fill_in_batch(
    ["[MASK] is the capital of [MASK][MASK]", ""],
    words,
    query_len=11,
    max_masks=4,
  )
  capital = words.encode("is the capital of")
  assert len(capital) == 4
  row = [words.cls_id, words.mask_id, *capital, words.mask_id, words.mask_id,
         words.sep_id, words.pad_id, words.pad_id]  # fmt: skip
  assert batch.query.input_ids[0].tolist() == row
  assert batch.mlm_positions.tolist() == [[1, 6, 7, 0], [0, 0, 0, 0]]
  assert batch.mlm_mask.tolist() == [[1, 1, 1, 0], [0, 0, 0, 0]]
  assert batch.query.attention_mask[1].sum() == 2  # [CLS] [SEP]
  assert (batch.own_block == -1).all()
  assert np.issubdtype(batch.mlm_targets.dtype, np.integer)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("the capital", r"'the capital' has no \[MASK\]"),
    ("[MASK] [MASK] [MASK]", r"3 times \[MASK\].*max_masks=2"),
    ("the capital of france is [MASK]", r"beyond the query_len=7"),
  ],
)
def test_bad_texts(words, text, message):
  with pytest.raises(InputError, match=message):
    fill_in.fill_in_batch([text], words, query_len=7, max_masks=2)
