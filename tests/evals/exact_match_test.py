"""String scores against values worked out by hand."""

import json
import math
import pathlib

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data.qa import Question
from realm_jax.evals import exact_match as em


@pytest.mark.parametrize(
  ("text", "normal"),
  [
    ("The  Hague", "hague"),
    ("U.S.A.", "usa"),
    ("an apple a day", "apple day"),
    ("theatre", "theatre"),
    ("Émile\u00a0Zola", "e\u0301mile zola"),  # decomposed, accent kept
    ("the", ""),
    ("«Paris»", "«paris»"),  # only ASCII punctuation goes
    ("twenty-one", "twentyone"),
  ],
)
def test_normalize_answer(text, normal):
  assert em.normalize_answer(text) == normal


def test_exact_match_is_any_reference():
  assert em.exact_match("the Beatles", ["Queen", "Beatles!"])
  assert not em.exact_match("Beatle", ["Queen", "Beatles"])
  assert not em.exact_match("Emile", ["Émile"])
  assert not em.exact_match("x", [])


@pytest.mark.parametrize(
  ("prediction", "patterns", "right"),
  [
    ("Mount Everest", ["everest"], False),  # anchored at the start
    ("everest peak", ["EVEREST"], True),  # any case, an end is not asked for
    ("1912", [r"(in )?19\d\d"], True),
    ("1912", ["("], False),  # a broken pattern is wrong, not an error
    ("1912", ["(", "1912"], True),
    ("first\nsecond", ["second"], False),  # match, not search
    ("ÉTÉ", ["été"], True),
  ],
)
def test_regex_match(prediction, patterns, right):
  assert em.regex_match(prediction, patterns) == right
  question = Question("q", "?", patterns, regex=True)
  assert em.is_right(prediction, question) == right


def test_scores_are_the_official_scripts():
  """SQuAD's F1 takes the two Unicode forms of É for different letters."""
  path = pathlib.Path(__file__).parent.parent / "testdata/official_scores"
  lines = (path / "cases.jsonl").read_text(encoding="utf-8").splitlines()
  assert len(lines) == 46
  otherwise = []
  for case in map(json.loads, lines):
    prediction, answers = case["prediction"], case["answer"]
    assert em.normalize_answer(prediction) == case["normal"]
    assert em.exact_match(prediction, answers) == case["exact_match"]
    assert em.regex_match(prediction, answers) == case["regex_match"]
    if em.f1(prediction, answers) != pytest.approx(case["f1"]):
      otherwise.append(prediction)
  assert otherwise == ["Émile Zola", "Å"]


def test_f1():
  # ours: new york city (3), theirs: york city hall (3), common 2 -> 2/3
  value = em.f1("New York City", ["york city hall", "paris"])
  assert value == pytest.approx(2 / 3)
  # repeated words count as often as both have them: p = 1/2, r = 1
  assert em.f1("blue blue", ["blue"]) == pytest.approx(2 / 3)
  assert em.f1("the", ["a"]) == 1.0
  assert em.f1("x", []) == 0.0


def test_mean_and_se_leaves_the_unjudged_out():
  mean, se = em.mean_and_se([1, 0, float("nan"), 1, 0])
  assert mean == 0.5
  # deviations .5 each: sd = sqrt(4 * .25 / 3), over sqrt(4)
  assert se == pytest.approx(math.sqrt(1 / 3) / 2)
  assert all(map(math.isnan, em.mean_and_se([])))
  assert math.isnan(em.mean_and_se([3.0])[1])


def test_paired_difference_is_tighter_than_its_parts():
  before = np.arange(10.0)
  after = before + 1
  assert em.paired_difference(after, before) == (1.0, 0.0)
  with pytest.raises(InputError, match="10 and 3"):
    em.paired_difference(before, [1, 2, 3])


def test_predictions_round_trip(tmp_path):
  rows = [
    em.Prediction("q1", "who?\u2028x", "Éa", ["Éa", "b"], True, 1.0, -0.5,
                  [{"block_id": 3, "title": "t", "text": "x", "p": 0.25}]),
    em.Prediction("q2", "what?", "", ["c"], False),
  ]  # fmt: skip
  path = tmp_path / "predictions.jsonl"
  em.write_predictions(path, rows)
  assert em.read_predictions(path) == rows


def test_bad_predictions_line_is_named(tmp_path):
  path = tmp_path / "predictions.jsonl"
  path.write_text('{"id": "1"}\n')
  with pytest.raises(InputError, match=r"predictions.jsonl:1: not a pred"):
    em.read_predictions(path)
  with pytest.raises(InputError, match="wanted a predictions file"):
    em.read_predictions(tmp_path / "absent.jsonl")


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
  monkeypatch.setenv("REALM_FAILPOINT", "publish:disk_full")
  row = em.Prediction("q1", "who?", "x", ["x"], True)
  with pytest.raises(InputError, match="no space left"):
    em.write_predictions(tmp_path / "predictions.jsonl", [row])
  assert list(tmp_path.iterdir()) == []
