"""RealmRetriever equals the reference; block records from anywhere."""

import json
import pathlib

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data import blocks, tokenizer
from realm_jax.data.articles import Article
from realm_jax.retrieval.retriever import (
  RealmRetriever,
  StoreRecords,
  find_answers,
)

REFERENCE = pathlib.Path(__file__).parents[1] / "testdata/reference/openqa"
INPUTS = ("input_ids", "token_type_ids", "special_tokens_mask")


@pytest.fixture(scope="module")
def retriever():
  return RealmRetriever.from_pretrained(REFERENCE)


@pytest.fixture(scope="module")
def io():
  return dict(np.load(REFERENCE / "io.npz"))


@pytest.fixture(scope="module")
def answers(retriever, io):
  texts = [str(a) for a in io["answers"]]
  return retriever.tokenizer(texts, add_special_tokens=False)["input_ids"]


def test_all_blocks_as_the_reference(retriever, io, answers):
  has, start, end, joint = retriever(
    np.arange(24), io["input_ids"], answers, max_length=32
  )
  for name in INPUTS:
    np.testing.assert_array_equal(joint[name], io[f"all_{name}"])
  assert has == io["all_has_answers"].tolist() and any(has) and not all(has)
  assert start == io["all_start_pos"].tolist()
  assert end == io["all_end_pos"].tolist()
  assert retriever.block_has_answer(joint, answers) == (has, start, end)


def test_without_answers(retriever, io):
  *labels, joint = retriever(
    [3, 1], io["input_ids"], None, max_length=32, return_tensors=None
  )
  assert labels == [None, None, None]
  assert isinstance(joint["input_ids"], list) and len(joint["input_ids"]) == 2
  has, start, end, _ = retriever([3, 1], io["input_ids"], [[71]])  # in no block
  assert (has, start, end) == ([False, False], [[], []], [[], []])


def test_many_questions(retriever, io, answers):
  both = retriever.tokenizer(
    [str(io["question"]), "what is the capital"], padding=True
  )["input_ids"]
  ids = np.array([[5, 0, 9], [1, 2, 3]])
  others = [[5], [20, 1, 5]]
  has, start, end, joint = retriever(ids, both, [answers, others], 32)
  assert joint["input_ids"].shape[:2] == np.shape(has) == (2, 3)
  for b, found in enumerate((answers, others)):
    one = retriever(ids[b], [both[b]], found, 32)
    assert has[b] == one[0]
    for many, alone in zip((start[b], end[b]), one[1:3], strict=True):
      for row, want in zip(many, alone, strict=True):
        assert [i for i in row if i >= 0] == [i for i in want if i >= 0]
    length = one[3]["input_ids"].shape[1]
    for name in INPUTS:
      np.testing.assert_array_equal(
        joint[name][b, :, :length], one[3][name], name
      )


def slow_search(row, answers, sep):
  """The same in the slowest way."""
  first = row.index(sep)
  second = row.index(sep, first + 1)
  return [
    (i, i + len(answer) - 1)
    for answer in answers
    for i in range(first + 1, second)
    if row[i : i + len(answer)] == answer
  ]


def test_answers_are_found_between_the_separators():
  rng = np.random.default_rng(0)
  rows = rng.integers(0, 3, (40, 17))
  rows[:, [4, 13]] = sep = 9
  rows[:, 14:] = [1, 2, 1]  # beyond the second: not searched
  beyond = [1, 9, 1, 2, 1, 2]  # the row ends before it does
  answers = [[1, 2], [0], [2, 2, 1], [1, 9, 1, 2], [1, 2], beyond]
  got = find_answers(rows, answers, sep)
  assert got == [slow_search(row, answers, sep) for row in rows.tolist()]
  assert any(end >= 13 for row in got for _, end in row)  # one that runs over


def test_a_directory_goes_both_ways(retriever, io, tmp_path):
  retriever.save_pretrained(tmp_path)
  again = RealmRetriever.from_pretrained(tmp_path)
  assert list(again.block_records) == list(retriever.block_records)
  one, other = (r([4], io["input_ids"], None)[3] for r in (retriever, again))
  np.testing.assert_array_equal(one["input_ids"], other["input_ids"])


def test_records_of_jsonl_and_of_a_block_store(retriever, tmp_path):
  articles = [
    Article("0", "Oslo", "It is the capital of Norway, née Christiania."),
    Article("1", "Delft", "The city of a painter."),
  ]
  text = "".join(json.dumps({"text": a.text}) + "\n" for a in articles)
  (tmp_path / "blocks.jsonl").write_text(text)
  words = [a.text for a in articles]
  tok = tokenizer.train_wordpiece(words * 2, 90)
  blocks.write_block_store(tmp_path / "store", articles, tok, 40)
  for name in ("blocks.jsonl", "store"):
    read = RealmRetriever.from_pretrained(REFERENCE, tmp_path / name)
    assert [r.decode() for r in read.block_records] == words
    assert len(read.block_records) == 2
    *_, joint = read([1], [[2, 13, 3]], None)
    assert retriever.tokenizer.decode(joint["input_ids"][0]) == (
      "[CLS] who [SEP] the city of a [UNK]. [SEP]"
    )
  assert isinstance(read.block_records, StoreRecords)


def test_what_does_not_fit(retriever, io):
  ids = io["input_ids"]
  with pytest.raises(InputError, match="block 24: there are 24 block records"):
    retriever([24], ids, None)
  with pytest.raises(InputError, match="2 questions, but blocks for 1"):
    retriever([[1, 2]], np.repeat(ids, 2, axis=0), None)
  with pytest.raises(InputError, match="answer_ids of 1 questions, but there"):
    retriever([[1], [2]], np.repeat(ids, 2, axis=0), [[[5]]])
  with pytest.raises(InputError, match="an answer without wordpieces"):
    retriever([1], ids, [[]])
  with pytest.raises(InputError, match="without two"):
    retriever.block_has_answer({"input_ids": [[2, 5, 3]]}, [[5]])
