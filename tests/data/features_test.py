import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data import features


def slow_query(ids, query_len, tok):
  row = [tok.cls_id, *ids[: query_len - 2], tok.sep_id]
  return row, [0] * len(row)


def slow_block(title, body, block_len, tok):
  title = title[: block_len - 3]
  body = body[: block_len - 3 - len(title)]
  row = [tok.cls_id, *title, tok.sep_id, *body, tok.sep_id]
  return row, [0] * (len(title) + 2) + [1] * (len(body) + 1)


def assert_rows(inputs, expected, length, tok):
  for r, (row, segments) in enumerate(expected):
    blank = length - len(row)
    assert inputs.input_ids[r].tolist() == row + [tok.pad_id] * blank
    assert inputs.token_type_ids[r].tolist() == segments + [0] * blank
    assert inputs.attention_mask[r].tolist() == [1] * len(row) + [0] * blank
  assert inputs.input_ids.dtype == np.int32


QUERIES = [[9, 8, 7], [], [5] * 20, [6] * 5, [6] * 6]


@pytest.mark.parametrize("query_len", [3, 7, 40])
def test_query_inputs(query_len, tok):
  inputs = features.query_inputs(QUERIES, query_len, tok)
  expected = [slow_query(ids, query_len, tok) for ids in QUERIES]
  assert_rows(inputs, expected, query_len, tok)


@pytest.mark.parametrize("block_len", [4, 11, 50])
def test_block_inputs(block_len, tok):
  titles = [[7, 6], [], [5] * 30, [8] * 3, [9]]
  bodies = [[11, 12, 13], [], [14], [15] * 60, [16] * 7]
  inputs = features.block_inputs(titles, bodies, block_len, tok)
  expected = [
    slow_block(t, b, block_len, tok)
    for t, b in zip(titles, bodies, strict=True)
  ]
  assert_rows(inputs, expected, block_len, tok)


def test_blocks_of_the_store(store, tok):
  tokens = store.device_tokens(17)
  rows = features.block_rows(
    tokens.token_ids, tokens.title_lens, tokens.lens, 17, tok
  )
  expected = [
    slow_block([*store.title_ids(i)], [*store.body_ids(i)], 17, tok)
    for i in range(len(store))
  ]
  assert_rows(rows, expected, 17, tok)


def test_qa_batch(tok):
  batch = features.qa_batch(
    [[9, 8], [7]],
    [[[1, 2, 3], [4], [5, 6], [7] * 4], []],
    query_len=5,
    max_answers=2,
    max_answer_len=3,
    tokenizer=tok,
    example_ids=[6, 4],
  )
  assert batch.answer_lens.tolist() == [[1, 2], [0, 0]]
  assert batch.answer_ids[0].tolist() == [[4, -1, -1], [5, 6, -1]]
  assert (batch.answer_ids[1] == -1).all()
  assert batch.example_ids.tolist() == [6, 4]
  assert_rows(
    batch.question, [slow_query(q, 5, tok) for q in ([9, 8], [7])], 5, tok
  )


def test_no_room_is_said(tok):
  with pytest.raises(InputError, match="query_len=2"):
    features.query_inputs([[1]], 2, tok)
  with pytest.raises(InputError, match="block_len=3"):
    features.block_inputs([[1]], [[1]], 3, tok)
