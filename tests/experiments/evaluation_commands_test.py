"""ask, evaluate and report as a person calls them, on the tiny runs."""

import json
import shutil

import pytest

from realm_jax.evals import exact_match


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


def test_evaluate_then_report(folder, run):
  qa = folder / "questions.jsonl"
  out = run("evaluate", folder, f"--config.qa={qa}")
  rows = {line.split()[0] for line in out.splitlines() if "±" in line}
  assert {"realm", "shuffled_blocks", "no_retrieval", "bm25"} <= rows
  assert "5 questions" in out
  written = folder / "finetune" / "predictions"
  summary = json.loads((written / "questions.json").read_text())
  assert summary["bm25"]["exact_match"] == 0.4
  predictions = exact_match.read_predictions(written / "questions.bm25.jsonl")
  assert [p.exact_match for p in predictions] == [1, 0, 1, 0, 0]
  page = run("report", folder).strip()
  assert page == str(folder / "report.html")
  text = (folder / "report.html").read_text()
  assert "which Dutch painter lived in Delft" in text
  assert "questions.realm.jsonl" in text


def test_evaluate_a_run_that_only_finds_blocks(folder, run):
  out = run(
    "evaluate", folder / "ict", f"--config.qa={folder / 'questions.jsonl'}"
  )
  realm = next(line for line in out.splitlines() if line.startswith("realm"))
  assert realm.split()[1] == "-"  # no exact match
  assert "±" in realm


def test_evaluate_names_a_bad_line(folder, run):
  qa = folder / "bad.jsonl"
  qa.write_text('{"question": "x", "answer": ["y"]}\n{"question": 3}\n')
  message = run("evaluate", folder, f"--config.qa={qa}", code=2)
  assert f"{qa}:2" in message


def test_report_without_a_run(tmp_path, run):
  message = run("report", tmp_path, code=2)
  assert "no metrics.jsonl, summary.json" in message
