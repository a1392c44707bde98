"""The swap's table: each answer judged by both books, a group at a time."""

import json

import numpy as np
import pytest

from realm_jax.data.qa import Question
from realm_jax.data.swap import BOOKS, GROUPS, Asked
from realm_jax.evals import swap_summary
from realm_jax.evals.exact_match import Prediction
from realm_jax.evals.qa import QaScores


def asked(group, split, number, old, new):
  text = f"who leads {number}?"
  answers = zip(BOOKS, (old, new), strict=True)
  return Asked(
    group,
    split,
    {b: Question(str(number), text, [x], "a") for b, x in answers},
  )


ASKED = [
  asked("changed leaders", "test", 0, "Ann", "Bob"),
  asked("changed leaders", "test", 1, "Cid", "Dan"),
  asked("changed leaders", "test", 2, "Eve", "Fay"),
  asked("unchanged facts", "train", 3, "Oslo", "Oslo"),
]
SAID = {  # what the reader answers with either index
  "old": ["Ann", "Cid", "Fay", "Oslo"],
  "new": ["Bob", "Cid", "Fay", "Rome"],
}


@pytest.fixture
def measured(tmp_path, monkeypatch):
  def ask(book, questions):
    predictions = [
      Prediction(q.id, q.question, said, q.answers, False)
      for q, said in zip(questions, SAID[book], strict=True)
    ]
    hits = np.array([1.0, 0.0, 0.0, 1.0])
    return QaScores(predictions, {"recall_1": hits, "recall_5": hits + 0})

  monkeypatch.setattr(swap_summary, "_ask", ask)
  swap_summary.measure({book: book for book in BOOKS}, ASKED, tmp_path)
  return tmp_path


def test_right_by_the_book_that_is_searched_and_crosswise(measured):
  summary = swap_summary.write(measured, {"ask": 2.0}, {"seconds_total": 7.0})
  assert summary == json.loads((measured / "summary.json").read_text())
  changed = summary["groups"]["changed leaders"]["test"]
  assert changed["count"] == 3
  third = np.std([1, 0, 0], ddof=1) / np.sqrt(3)
  for name, mean in (
    ("old index, old answer", 2 / 3),
    ("old index, new answer", 1 / 3),
    ("new index, new answer", 2 / 3),
    ("new index, old answer", 1 / 3),
  ):
    assert changed[name] == pytest.approx([mean, third], abs=1e-4)
  same = summary["groups"]["unchanged facts"]["train"]
  assert same["old index, old answer"] == [1.0, None]  # of one, no error
  assert same["new index, new answer"] == [0.0, None]
  assert summary["groups"]["unchanged leaders"]["test"]["count"] == 0
  assert summary["examples"][1] == {
    "question": "who leads 1?",
    "old index": "Cid",
    "new index": "Cid",
  }
  kept = measured / "predictions" / "new_index.jsonl"
  assert [json.loads(x)["prediction"] for x in kept.open()] == SAID["new"]


def test_the_table_has_a_row_a_group_in_its_order(measured):
  table = swap_summary.table(
    swap_summary.write(measured, {}, {"seconds_total": 7.0})
  )
  lines = table.splitlines()
  rows = [line for line in lines if line in GROUPS]
  assert rows == list(GROUPS)
  held_out = lines[lines.index("changed leaders") + 1]
  assert (
    held_out.split()
    == (
      "held-out countries 3 0.667 ±0.333 0.333 ±0.333 0.333 ±0.333 0.667 ±0.333"
    ).split()
  )
  assert "  who leads 0?  Ann  ->  Bob" in lines
