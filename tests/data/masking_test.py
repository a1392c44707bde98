import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data import features, masking


def test_against_one_by_one(tok):
  rng = np.random.default_rng(0)
  query_len, max_masks = 13, 3
  rows = [rng.integers(5, 90, n).tolist() for n in (11, 4, 30, 6)]
  spans = [(9, 11), (0, 4), (2, 7), (5, 6)]
  token_ids, lens = features.pad_rows(rows, query_len - 2)
  masked = masking.mask_spans(
    token_ids,
    lens,
    np.array(spans),
    query_len=query_len,
    max_masks=max_masks,
    tokenizer=tok,
  )
  for r, (row, (start, end)) in enumerate(zip(rows, spans, strict=True)):
    hidden = row[: query_len - 2]
    targets = hidden[start:end][:max_masks]
    hidden[start:end] = [tok.mask_id] * (end - start)
    expected = features.query_inputs([hidden], query_len, tok)
    assert (masked.query.input_ids[r] == expected.input_ids[0]).all()
    n = len(targets)
    assert masked.targets[r].tolist() == targets + [0] * (max_masks - n)
    assert masked.mask[r].tolist() == [1] * n + [0] * (max_masks - n)
    positions = masked.positions[r]
    assert (masked.query.input_ids[r, positions[:n]] == tok.mask_id).all()
    assert positions.tolist() == [start + 1 + j for j in range(n)] + [0] * (
      max_masks - n
    )


def test_a_moved_span_keeps_its_length_and_gets_everywhere():
  lens, spans = np.array([7, 4, 5]), np.array([[2, 5], [0, 4], [4, 5]])
  starts = []
  for draw in np.linspace(0, 1, 50, endpoint=False):
    moved = masking.move_spans(spans, lens, np.full(3, draw))
    assert (np.diff(moved) == np.diff(spans)).all()
    starts.append(moved[:, 0])
  for row, last in zip(np.transpose(starts), (4, 0, 4), strict=True):
    assert set(row) == set(range(last + 1))


def test_single_wordpieces_are_hidden_anywhere(tok):
  rng = np.random.default_rng(1)
  query_len, max_masks, share = 15, 4, 0.3
  rows = [rng.integers(5, 90, n).tolist() for n in (13, 1, 30, 7)]
  token_ids, lens = features.pad_rows(rows, query_len - 2)
  sizes = {"query_len": query_len, "max_masks": max_masks, "tokenizer": tok}

  def mask(rows, draw):
    return masking.mask_anywhere(
      token_ids[rows], lens[rows], draw[rows], share=share, **sizes
    )

  ever = np.zeros(token_ids.shape, int)
  for _ in range(60):
    draw = rng.random(4)
    masked = mask(slice(None), draw)
    shown = masked.query.input_ids[:, 1:-1]
    hidden = shown == tok.mask_id
    ever += hidden
    assert hidden.sum(1).tolist() == [4, 1, 4, 2]  # .3 of 13, 1, 13, 7
    assert masked.mask.sum(1).tolist() == [4, 1, 4, 2]
    for r in range(4):  # the targets put back are the text
      n = masked.mask[r].sum()
      at = masked.positions[r, :n]
      restored = masked.query.input_ids[r].copy()
      restored[at] = masked.targets[r, :n]
      plain = features.query_inputs([rows[r]], query_len, tok)
      assert (restored == plain.input_ids[0]).all()
    alone = mask(slice(2, 4), draw)  # as a process that has these rows
    assert (alone.query.input_ids == masked.query.input_ids[2:]).all()
  seen = np.minimum(lens, query_len - 2)[:, None]
  assert ((ever > 0) == (np.arange(query_len - 2) < seen)).all()


@pytest.mark.parametrize("given", [{"kind": "words"}, {"share": 0.0}])
def test_a_masking_that_cannot_be(given):
  with pytest.raises(InputError, match=r"config mask\w+="):
    masking.Masking(**given)
