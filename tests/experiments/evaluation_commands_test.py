"""ask, evaluate and report as a person calls them, on the tiny runs."""

import json
import shutil

import pytest

from realm_jax.data import qa
from realm_jax.evals import exact_match, per_question


@pytest.fixture(scope="module")
def folder(demo, tmp_path_factory):
  """A copy that the commands may write to."""
  copy = tmp_path_factory.mktemp("commands") / "demo"
  shutil.copytree(demo, copy)
  return copy


@pytest.fixture
def run(start):
  """run(NAME, workdir, *words, code) -> stdout, or the last line of stderr."""

  def call(name, workdir, *words, code=0):
    outcome = start(name, f"--workdir={workdir}", *words)
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    return outcome.err.strip().splitlines()[-1] if code else outcome.out

  return call


def test_ask_shows_answer_and_evidence(folder, run):
  out = run("ask", folder, "river of", "Africa", "--config.evidence=2")
  answer = out.split("answer: ")[1].splitlines()[0]
  assert answer and "score: -" in out
  assert out.count("p(z|x) 0.") == 2
  assert f"»{answer}«" in out or out.count("«") == 0
  assert "note:" not in out


def test_ask_a_pretrained_run(folder, run):
  out = run("ask", folder / "pretrain", "[MASK] is a river")
  assert out.startswith("note: ")
  assert "null block: no evidence" in out


@pytest.mark.parametrize(
  ("words", "message"),
  [
    ([], "error: no question"),
    ([""], "error: question 1 is empty"),
    (["x", "--config.evidenze=3"], "error: --config.evidenze: no such key"),
  ],
)
def test_ask_says_what_is_wrong(folder, words, message, run):
  assert run("ask", folder, *words, code=2).startswith(message)


def test_ask_without_a_run(tmp_path, run):
  message = run("ask", tmp_path / "none", "who", code=2)
  assert "no trained run here" in message


def test_evaluate_compare_report(folder, run):
  questions = folder / "questions.jsonl"
  ranking = folder / "theirs.trec"
  ranking.write_text("q0 Q0 3 1 2.5 they\nq2 Q0 9 1 7 they\n")
  out = run(
    "evaluate", folder, f"--config.qa={questions}", f"--config.run_file={ranking}",
    "--config.run_depth=7", "--config.reader_beam_size=4",
  )  # fmt: skip
  rows = {line.split()[0] for line in out.splitlines() if "±" in line}
  assert {"realm", "shuffled_blocks", "no_retrieval", "bm25"} <= rows
  assert "run_file" in rows and "run_file, gold block" in out
  assert "5 questions" in out
  written = folder / "finetune" / "predictions"
  summary = json.loads((written / "questions.json").read_text())
  bm25 = summary["bm25"]
  assert bm25["exact_match"] == 0.4
  assert 0 <= bm25["exact_match_low"] < 0.4 < bm25["exact_match_high"] <= 1
  assert summary["run_file"]["recall_1"] == 0.5  # q0 and q2, of four judged
  realm = exact_match.read_predictions(written / "questions.realm.jsonl")
  assert {len(p.evidence) for p in realm} == {4}
  lines = (
    (folder / "finetune/runs/questions.realm.trec").read_text().split("\n")
  )
  assert [line.split()[0] for line in lines[:-1:7]] == [
    f"q{i}" for i in range(5)
  ]
  theirs = "finetune/per_question/questions.bm25.jsonl"
  table = run("compare", folder, "finetune", theirs)
  (row,) = [line for line in table.splitlines() if line.startswith("exact_m")]
  assert row.split()[2] == "0.400" and row.split()[-2:] == ["McNemar", "5"]
  assert "McNemar" in (folder / "compare.html").read_text()
  predictions = exact_match.read_predictions(written / "questions.bm25.jsonl")
  assert [p.exact_match for p in predictions] == [1, 0, 1, 0, 0]
  page = run("report", folder).strip()
  assert page == str(folder / "report.html")
  text = (folder / "report.html").read_text()
  assert "which Dutch painter lived in Delft" in text
  assert "questions.realm.jsonl" in text


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["one"], "1 runs given: wanted two"),
    (["one", "two"], "two: no per_question/*.realm.jsonl in it"),
    (["one", "other.jsonl"], 'has the question "q0"'),
  ],
)
def test_compare_says_what_is_wrong(tmp_path, words, message, run):
  for name, key in (("one/per_question/x.realm", "q0"), ("other", "q1")):
    questions = [qa.Question(key, "who", ["x"])]
    per_question.write_scores(
      tmp_path / f"{name}.jsonl", questions, {"f1": [1]}
    )
  assert message in run("compare", tmp_path, *words, code=2)


def test_evaluate_a_run_that_only_finds_blocks(folder, run):
  out = run(
    "evaluate", folder / "ict", f"--config.qa={folder / 'questions.jsonl'}"
  )
  realm = next(line for line in out.splitlines() if line.startswith("realm"))
  assert realm.split()[1] == "-"  # no exact match
  assert "±" in realm


def test_evaluate_names_a_bad_line(folder, run):
  bad = folder / "bad.jsonl"
  bad.write_text('{"question": "x", "answer": ["y"]}\n{"question": 3}\n')
  message = run("evaluate", folder, f"--config.qa={bad}", code=2)
  assert f"{bad}:2" in message


def test_report_without_a_run(tmp_path, run):
  message = run("report", tmp_path, code=2)
  assert "no metrics.jsonl, summary.json" in message
