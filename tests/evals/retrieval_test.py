"""Recall against hand-counted hits and a slow loop."""

import math

import numpy as np
import pytest

from realm_jax.data.qa import Question
from realm_jax.evals import retrieval

RETRIEVED = np.array([[4, 2, 9], [1, 7, 3], [5, 6, 8], [2, -1, -1]])


def test_gold_hits_by_hand():
  gold = [{9, 11}, {1}, {0}, None]
  hits = retrieval.gold_hits(RETRIEVED, gold, cutoffs=(1, 2, 3, 20))
  assert hits[1].tolist()[:3] == [0, 1, 0]
  assert hits[2].tolist()[:3] == [0, 1, 0]
  assert hits[3].tolist()[:3] == [1, 1, 0]
  assert hits[20].tolist()[:3] == [1, 1, 0]  # k beyond the ranking
  assert all(math.isnan(values[3]) for values in hits.values())
  summary = retrieval.recall(hits)
  assert summary["3"][0] == pytest.approx(2 / 3)
  assert set(summary) == {"1", "2", "3", "20"}


def test_gold_hits_against_a_loop():
  rng = np.random.default_rng(0)
  retrieved = np.stack([rng.permutation(40)[:20] for _ in range(33)])
  gold = [set(rng.integers(0, 40, rng.integers(0, 4)).tolist())
          for _ in range(33)]  # fmt: skip
  hits = retrieval.gold_hits(retrieved, gold)
  for k in retrieval.CUTOFFS:
    slow = [any(b in gold[i] for b in retrieved[i, :k]) for i in range(33)]
    assert hits[k].tolist() == slow


def test_a_gold_article_outside_the_corpus_is_a_miss():
  hits = retrieval.gold_hits(RETRIEVED[:1], [set()])
  assert [hits[k].tolist() for k in (1, 5, 20)] == [[0], [0], [0]]


def test_no_block_is_never_a_hit():
  hits = retrieval.gold_hits(np.array([[-1, -1], [-1, 3]]), [{-1}, {3}])
  assert hits[5].tolist() == [0, 1]
  assert hits[1].tolist() == [0, 1]  # the first that is there


@pytest.mark.parametrize(
  ("answers", "regex", "held"),
  [
    (["Paris"], False, True),
    (["paris"], False, False),  # case counts
    (["Lyon", "capital"], False, True),
    (["par(is|ma)"], False, False),
    (["par(is|ma)"], True, True),  # anywhere, any case
    (["(", "is"], True, True),
    (["("], True, False),
    ([], False, False),
    (["", " "], False, False),  # would be in every text
  ],
)
def test_has_answer(answers, regex, held):
  text = "The capital is Paris."
  assert retrieval.has_answer(text, answers, regex) == held


def test_answer_hits():
  texts = {4: "red", 2: "blue", 9: "green fox", 1: "x", 7: "red fox", 3: "y"}
  questions = [
    Question("a", "?", ["blue", "green"]),
    Question("b", "?", ["F.X"], regex=True),
  ]
  hits = retrieval.answer_hits(
    RETRIEVED[:2], questions, texts.get, cutoffs=(1, 2, 3)
  )
  assert [hits[k].tolist() for k in (1, 2, 3)] == [[0, 0], [1, 1], [1, 1]]
  assert retrieval.answer_hits(
    RETRIEVED[:1], [questions[1]], texts.get, cutoffs=(2, 3)
  ) == {2: [0], 3: [1]}


def test_cutoffs_end_with_the_index():
  assert retrieval.all_cutoffs(11) == (1, 5, 20)
  assert retrieval.all_cutoffs(1000) == (1, 5, 20, 50, 100, 500)
  assert retrieval.all_cutoffs(5001)[-2:] == (1000, 5000)
