"""Files of scores: written, found, and read in pairs."""

import math

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data.qa import Question
from realm_jax.evals import per_question

QUESTIONS = [Question(f"q{i}", f"wer {i}? é", ["x"]) for i in range(3)]
EM = np.array([1.0, 0.0, math.nan])


def _write(folder, name="test.realm", questions=QUESTIONS, **columns):
  path = folder / per_question.FOLDER / f"{name}.jsonl"
  per_question.write_scores(path, questions, columns or {"em": EM})
  return path


def test_pairs_are_in_the_first_files_order(tmp_path):
  a = _write(tmp_path / "a", em=EM, f1=EM / 2)
  b = _write(tmp_path / "b", questions=QUESTIONS[::-1], em=EM)
  ours, theirs = per_question.read_together([a, b])
  np.testing.assert_array_equal(ours["em"], EM)
  np.testing.assert_array_equal(ours["f1"], EM / 2)
  np.testing.assert_array_equal(theirs["em"], EM[::-1])


def test_files_about_different_questions_are_refused(tmp_path):
  a = _write(tmp_path / "a")
  other = [*QUESTIONS[:2], QUESTIONS[2]._replace(question="wo?")]
  for questions, column in ((other, EM), (QUESTIONS[:2], EM[:2])):
    b = _write(tmp_path / "b", questions=questions, em=column)
    for pair in ((a, b), (b, a)):
      with pytest.raises(InputError, match='has the question "q2"') as e:
        per_question.read_together(pair)
      assert str(a) in str(e.value) and str(b) in str(e.value)


def test_files_without_a_common_metric_are_refused(tmp_path):
  a, b = _write(tmp_path / "a"), _write(tmp_path / "b", f1=EM)
  with pytest.raises(InputError, match="no metric in common"):
    per_question.read_together([a, b])


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ('{"id": "q", "question": "x"}\n', "x.jsonl:1: no line of scores"),
    ('{"id": "q", "question": "x", "scores": {"f1": "high"}}\n', ":1: no line"),
    ('{"id": "q", "question": "x", "scores": {}}\n' * 2, '"q" again'),
    ("", "holds no question"),
  ],
)
def test_bad_files_are_named(tmp_path, text, message):
  (tmp_path / "x.jsonl").write_text(text)
  with pytest.raises(InputError) as e:
    per_question.read_together([tmp_path / "x.jsonl"] * 2)
  assert message in str(e.value)


def test_where_scores_are_found(tmp_path):
  run = tmp_path / "demo" / "finetune"
  with pytest.raises(
    InputError, match=r"run experiments\.evaluate on it first"
  ):
    per_question.find_scores(tmp_path / "demo", "")
  path = _write(run)
  _write(run, "test.bm25")
  for given in (path, run, tmp_path / "demo"):
    assert per_question.find_scores(given, "") == path
  assert per_question.find_scores(run, "test.bm25").stem == "test.bm25"
  _write(run, "dev.realm")
  with pytest.raises(InputError, match=r"dev\.realm\.jsonl.*--config\.name"):
    per_question.find_scores(run, "")
