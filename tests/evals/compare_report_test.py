"""Runs compared: intervals, differences, curves and configs on one page."""

import json

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data.qa import Question
from realm_jax.evals import compare_report, per_question, uncertainty

EVIL = "<script>alert(1)</script>"
QUESTIONS = [Question(f"q{i}", "who?", ["x"]) for i in range(40)]
RIGHT = {"a": 10, "b": 26, EVIL.replace("/", "_"): 11}  # of the 40


@pytest.fixture
def paths(tmp_path):
  """Files of scores of three runs, two of which have curves and a config."""
  found = []
  for number, (name, right) in enumerate(RIGHT.items()):
    run = tmp_path / name
    exact = (np.arange(40) < right).astype(float)
    columns = {"exact_match": exact}
    if number < 2:
      columns["f1"] = exact / 2
    found.append(run / per_question.FOLDER / "test.realm.jsonl")
    per_question.write_scores(found[-1], QUESTIONS, columns)
    rows = [{"step": s, "loss": 9.0 - s - number} for s in range(5)]
    lines = "\n".join(map(json.dumps, rows))
    (run / "metrics.jsonl").write_text(lines)
    config = {"seed": 0, "train": {"num_steps": 5 + number, "note": EVIL}}
    (run / "config.json").write_text(json.dumps(config))
  return found


def test_two_or_more_are_compared(paths):
  with pytest.raises(InputError, match="1 runs given: wanted two or more"):
    compare_report.compare(paths[:1], 50, 0)
  with pytest.raises(InputError, match="resamples=0: wanted 1 or more"):
    compare_report.compare(paths, 0, 0)
  compared = compare_report.compare(paths, 500, 3)
  said = compare_report.table(compared)
  assert f"C: {paths[2]}" in said and "C - A" in said and "B - A" in said
  b, c = compared.differences
  assert (b["exact_match"].a, b["exact_match"].b) == (0.25, 0.65)
  assert b["exact_match"].p < 0.001
  assert c["exact_match"].p > 0.9
  assert set(c) == {"exact_match"}  # it has no f1
  means = {k: v[:40] for k, v in compared.columns[1].items()}
  assert compared.intervals[1] == uncertainty.intervals(means, 500, 3)


def test_the_page(paths):
  compared = compare_report.compare(paths, 500, 3)
  page = compare_report.render(compared, "python -m experiments.compare a b c")
  low, high = compared.intervals[1]["exact_match"]
  for shown in (f"0.650 [{low:.3f}, {high:.3f}]", "+0.400", "C − A", "McNemar",
                "40 questions", "train.num_steps", "experiments.compare a b c",
                "Loss: loss, nats, by training step"):  # fmt: skip
    assert shown in page
  assert "<script" not in page and "http://" not in page.split("<svg")[0]
  assert page.count("<svg") == 1  # the three lines of one metric
  for color in ("#2f8fd8", "#e07b39", "#3aa66b"):
    assert color in page
  configs = page.split('id="configs"')[1]
  assert "num_steps" in configs and "seed" not in configs
  assert "train.note" not in configs


def test_scores_without_a_run(paths):
  (paths[1].parent.parent / "config.json").unlink()
  compared = compare_report.compare(paths[:2], 50, 0)
  page = compare_report.render(compared, "x")
  assert "Not every run has a" in page.split('id="configs"')[1]
