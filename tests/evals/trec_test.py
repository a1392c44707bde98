"""Run files: what is written is read back, and by ir_measures as well."""

import ir_measures
import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data.qa import Question
from realm_jax.evals import trec
from realm_jax.evals.retrieval import Found

QUESTIONS = [Question("Bass guitar", "?", ["x"]), Question("Zoë:7", "?", ["x"])]
FOUND = Found(
  np.array([[4, 2, 11], [7, -1, -1]]),
  np.array([[0.5, 0.5, 0.1], [-3.25, -np.inf, -np.inf]]),
)


def test_round_trip_keeps_the_order_of_equal_scores(tmp_path):
  path = tmp_path / "x.trec"
  trec.write_run(path, QUESTIONS, FOUND, tag="realm", depth=9)
  lines = path.read_text().splitlines()
  assert lines[0] == "Bass%20guitar Q0 4 1 0.5 realm"
  assert lines[3] == "Zo%C3%AB:7 Q0 7 1 -3.25 realm"
  found = trec.read_run(path, QUESTIONS, 12)
  assert found.ids.tolist() == FOUND.ids.tolist()
  np.testing.assert_allclose(found.scores, FOUND.scores)
  read = list(ir_measures.read_trec_run(str(path)))
  assert [doc.doc_id for doc in read] == ["4", "2", "11", "7"]
  # or a scorer would put 2 first
  assert np.float32(read[0].score) > np.float32(read[1].score)


def test_only_the_best_are_written(tmp_path):
  trec.write_run(tmp_path / "x", QUESTIONS, FOUND, tag="a", depth=2)
  found = trec.read_run(tmp_path / "x", QUESTIONS, 12)
  assert found.ids.tolist() == [[4, 2], [7, -1]]


def test_another_systems_file_is_sorted_as_trec_eval_does(tmp_path):
  (tmp_path / "x").write_text(
    "q1\tQ0 3 1 1.5 bm25\n\nq1 Q0 10 1 2e1 bm25\nq1 Q0 9 1 1.5 bm25\n"
    "q1 Q0 30 1 1.5 bm25\n"
  )
  questions = [Question("q0", "?", ["x"]), Question("q1", "?", ["x"])]
  found = trec.read_run(tmp_path / "x", questions, 31)
  assert found.ids.tolist() == [[-1] * 4, [10, 9, 30, 3]]  # names backwards
  assert found.scores[1].tolist() == [20, 1.5, 1.5, 1.5]


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ("q1 Q0 3 1 0.5", "x:2: 5 fields: wanted `question Q0"),
    ("q2 Q0 3 1 0.5 a", 'x:2: there is no question of the id "q2"'),
    ("q1 Q0 5 1 0.5 a", 'x:2: "5" is no block of this index: wanted a row, 0'),
    ("q1 Q0 -1 1 0.5 a", 'x:2: "-1" is no block'),
    ("q1 Q0 ² 1 0.5 a", 'x:2: "²" is no block'),
    ("q1 Q0 4 1 9 a", 'x:2: block 4 of question "q1" again'),
    ("q1 Q0 3 1 half a", 'x:2: the score "half" is no number'),
    ("q1 Q0 3 1 nan a", 'x:2: the score "nan" is no number'),
  ],
)
def test_bad_lines_are_named(tmp_path, line, message):
  (tmp_path / "x").write_text(f"q1 Q0 4 1 0.5 a\n{line}\n", encoding="utf-8")
  with pytest.raises(InputError) as e:
    trec.read_run(tmp_path / "x", [Question("q1", "?", ["x"])], 5)
  assert message in str(e.value)


def test_a_missing_file():
  with pytest.raises(InputError, match="wanted a TREC run file"):
    trec.read_run("nowhere", [], 5)
