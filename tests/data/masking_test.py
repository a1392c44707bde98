import numpy as np

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
