"""BM25 against the formula, in plain Python."""

import math

import numpy as np

from realm_jax.evals.bm25 import Bm25

TEXTS = [
  "red fox jumps over red logs",
  "blue whale swims",
  "red sea, blue sea, sea of whale bones",
  "fox news",
  "? a !",  # no word of two letters
]
WORDS = [
  ["red", "fox", "jumps", "over", "red", "logs"],
  ["blue", "whale", "swims"],
  ["red", "sea", "blue", "sea", "sea", "of", "whale", "bones"],
  ["fox", "news"],
  [],
]


def _slow_scores(query):
  mean_len = sum(map(len, WORDS)) / len(WORDS)
  scores = []
  for words in WORDS:
    score = 0.0
    for word in query:
      df = sum(word in other for other in WORDS)
      idf = math.log(1 + (len(WORDS) - df + 0.5) / (df + 0.5))
      tf = words.count(word)
      norm = 0.9 * (0.6 + 0.4 * len(words) / mean_len)
      score += idf * tf / (tf + norm)
    scores.append(score)
  return scores


def test_search_is_the_formula():
  for query in (["red", "fox"], ["sea", "whale"], ["whale"], ["blue", "red"]):
    scores = _slow_scores(query)
    order = sorted(range(len(TEXTS)), key=lambda i: -scores[i])
    expected = [i for i in order if scores[i] > 0][:3]
    expected += [-1] * (3 - len(expected))
    assert Bm25(TEXTS).search([" ".join(query)], 3).ids[0].tolist() == expected


def test_nothing_shared_is_nothing_found():
  index = Bm25(TEXTS)
  found = index.search(["the", "", "zebra", "news"], 2).ids
  assert found.tolist() == [[-1, -1], [-1, -1], [-1, -1], [3, -1]]
  assert index.search([], 2).ids.shape == (0, 2)
  assert (Bm25(["?", "a"]).search(["the fox"], 2).ids == -1).all()


def test_more_asked_for_than_there_are_blocks():
  found = Bm25(TEXTS).search(["red fox"], 9).ids
  assert found.shape == (1, 9)
  assert np.flatnonzero(found[0] >= 0).tolist() == [0, 1, 2]
