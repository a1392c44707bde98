import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realm_jax.config import InputError
from realm_jax.data import text_store, text_writer, tokenizer
from realm_jax.data.masking import Masking
from realm_jax.data.text_writer import Record

RECORDS = [
  Record(
    "Marie Curie was born in Warsaw.", [(0, 11, "e"), (24, 30, "e")], 4, 5
  ),
  Record("Nothing to see.", []),
  Record("In Zürich in 1867.", [(3, 10, "e"), (14, 18, "d")], -1, 2, "dev"),
  Record("Neil Armstrong on the Moon.", [(0, 14, "e")], 3, 3, "test"),
  Record("Buzz Aldrin followed.", [(0, 11, "e")], 1, 1),
]


def write(path, tok, records=RECORDS, hold_out=False):
  return text_writer.write_text_store(
    path, records, tok, source="x", hold_out=hold_out
  )


def read(path, tok, split="train", query_len=30, max_masks=20, **more):
  return text_store.MaskedTexts(
    path, split, tok, query_len=query_len, max_masks=max_masks, **more
  )


def test_every_span_is_hidden_whole(tok, tmp_path):
  counts = write(tmp_path / "t", tok)
  assert (counts["num_read"], counts["num_records"]) == (5, 4)
  assert (counts["train"], counts["dev"], counts["test"]) == (2, 1, 1)
  for split, record in (("train", 0), ("dev", 2), ("test", 3)):
    texts = read(tmp_path / "t", tok, split)
    text, spans, own, gold, _ = RECORDS[record]
    for i, (a, b, _) in enumerate(spans):
      draw = np.array([[(i + 0.5) / len(spans), 0]])
      batch = texts.rows(np.array([0]), draw)
      raw = text.encode()
      before, hidden = raw[:a].decode(), raw[a:b].decode()
      after = raw[b:].decode()
      n = len(tok.encode(hidden))
      expected = [*tok.encode(before), *[tok.mask_id] * n, *tok.encode(after)]
      row = batch.query.input_ids[0, 1 : 1 + len(expected)]
      assert row.tolist() == expected
      assert batch.mlm_targets[0, :n].tolist() == tok.encode(hidden)
      assert batch.mlm_mask.sum() == n
      assert (batch.own_block[0], batch.gold_block[0]) == (own, gold)


def test_the_kinds_of_masking_differ_in_the_masks_alone(tok, tmp_path):
  write(tmp_path / "t", tok)
  batches = {
    kind: read(tmp_path / "t", tok, masking=Masking(kind, 0.5)).rows(
      np.array([1, 0]), np.array([[0.1, 0.9, 0], [0.2, 0.8, 0]])
    )
    for kind in ("salient", "span", "uniform")
  }
  plain = {}
  for kind, batch in batches.items():
    text = batch.query.input_ids.copy()
    row, column = np.nonzero(batch.mlm_mask)
    at = batch.mlm_positions[row, column]
    assert (text[row, at] == tok.mask_id).all()
    text[row, at] = batch.mlm_targets[row, column]
    plain[kind] = text
  for kind in ("span", "uniform"):
    assert (plain[kind] == plain["salient"]).all()
    assert batches[kind].own_block.tolist() == [1, 4]
  masks = {kind: batch.mlm_mask.sum(1) for kind, batch in batches.items()}
  assert (masks["span"] == masks["salient"]).all()
  assert (masks["uniform"] > masks["salient"]).any()
  moved = batches["span"].mlm_positions - batches["salient"].mlm_positions
  assert moved.any(axis=1).all()


def test_filling_rows_bring_no_loss(tok, tmp_path):
  write(tmp_path / "t", tok)
  batch = read(tmp_path / "t", tok).rows(np.array([1, -1]), np.zeros((2, 2)))
  assert batch.example_ids.tolist() == [3, -1]
  assert batch.mlm_mask[0].any()
  assert not batch.mlm_mask[1].any()
  assert batch.own_block.tolist() == batch.gold_block.tolist() == [1, -1]


def test_spans_beyond_the_query_are_left_out(tok, tmp_path):
  write(tmp_path / "t", tok)
  room = len(tok.encode("Marie Curie"))
  texts = read(tmp_path / "t", tok, query_len=room + 2)
  for draw in (0.0, 0.99):  # the second span of record 0 ends too late
    batch = texts.rows(np.array([0]), np.array([[draw, 0]]))
    assert batch.mlm_targets[0, :room].tolist() == tok.encode("Marie Curie")
  assert len(read(tmp_path / "t", tok, query_len=3)) == 0


def test_a_tenth_is_held_out_by_hash(tok, tmp_path):
  def records(names):
    return [Record(f"{n} Moon", [(0, len(n), "e")]) for n in names]

  names = [f"Name{i}" for i in range(100)]
  counts = write(tmp_path / "a", tok, records(names), hold_out=True)
  assert (counts["train"], counts["dev"], counts["test"]) == (90, 5, 5)
  write(tmp_path / "b", tok, records(names[::-1]), hold_out=True)
  splits = np.load(tmp_path / "a" / "split.npy")
  assert (splits[::-1] == np.load(tmp_path / "b" / "split.npy")).all()
  few = write(tmp_path / "c", tok, records(names[:3]), hold_out=True)
  assert (few["train"], few["dev"], few["test"]) == (1, 1, 1)


def test_no_span_at_all_is_said(tok, tmp_path):
  with pytest.raises(InputError, match='"x": none of its 1'):
    write(tmp_path / "t", tok, RECORDS[1:2])
  assert not list(tmp_path.iterdir())


def test_another_tokenizer_is_refused(tok, tmp_path):
  write(tmp_path / "t", tok)
  other = tokenizer.train_wordpiece(["some other words"], 60)
  with pytest.raises(InputError, match="prepare the data again"):
    read(tmp_path / "t", other)


@given(st.data())
def test_token_spans_against_one_by_one(data):
  lens = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=8))
  gaps = [data.draw(st.integers(0, 2)) for _ in lens]
  offsets, at = [], 0
  for gap, n in zip(gaps, lens, strict=True):
    offsets.append((at + gap, at + gap + n))
    at += gap + n
  start = data.draw(st.integers(0, at))
  end = data.draw(st.integers(start, at))
  inside = [i for i, (a, b) in enumerate(offsets) if start <= a and b <= end]
  expected = [inside[0], inside[-1] + 1] if inside else []
  assert text_writer.token_spans(offsets, [(start, end, "")]) == expected
