import gzip

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data import qa


def test_jsonl_round_trip(tmp_path):
  questions = [
    qa.Question("q7", "Who?", ["Zoë", "Z."], "a1"),
    qa.Question("q8", "Wann?", [r"19\d\d"], "", True, ("1969", "1970")),
  ]
  qa.write_qa(tmp_path / "q.jsonl", questions)
  assert qa.read_qa(tmp_path / "q.jsonl") == questions
  with gzip.open(tmp_path / "z.jsonl.gz", "wb") as f:
    f.write((tmp_path / "q.jsonl").read_bytes())
  assert qa.read_qa(tmp_path / "z.jsonl.gz") == questions


def test_tsv(tmp_path):
  (tmp_path / "q.tsv").write_text("Who?\t['Zoë', \"O'Hara\"]\n\nWhen?\t['1']\n")
  first, second = qa.read_qa(tmp_path / "q.tsv")
  assert first == qa.Question("0", "Who?", ["Zoë", "O'Hara"])
  assert (second.question, second.answers) == ("When?", ["1"])


@pytest.mark.parametrize(
  "answer",
  [
    '"answer": ["Ada", "Lady", "Ada"]',
    '"answers": ["Ada", "Lady"]',
    '"answer": {"value": "Ada", "aliases": ["Lady", "Ada"], "type": "x"}',
    '"answers": {"text": ["Ada", "Lady"], "answer_start": [3, 7]}',
    '"answers": [{"text": "Ada", "answer_start": 3}, {"text": "Lady"}]',
  ],
)
def test_each_data_sets_answers(tmp_path, answer):
  (tmp_path / "q.jsonl").write_text('{"question": "Who?", %s}\n' % answer)  # noqa: UP031
  (question,) = qa.read_qa(tmp_path / "q.jsonl")
  assert question.answers == ["Ada", "Lady"]


def test_answers_are_patterns_where_it_is_said(tmp_path):
  (tmp_path / "q.txt").write_text(
    '{"question": "a", "answer": ["b"], "regex": false}\n'
    '{"question": "c", "answer": ["d"], "question_id": "tc_7"}\n'
  )
  first, second = qa.read_qa(tmp_path / "q.txt", regex=True)
  assert (first.regex, second.regex) == (False, True)
  assert (first.id, second.id) == ("0", "tc_7")


@pytest.mark.parametrize(
  "name, text, message",
  [
    ("q.jsonl", '{"answer": ["a"]}', 'q.jsonl:1: lacks "question"'),
    ("q.jsonl", '\n{"question": "a"}', 'q.jsonl:2: lacks "answer"'),
    (
      "q.jsonl",
      '{"question": "a", "answer": "b"}',
      'q.jsonl:1: "answer" must be a list',
    ),
    (
      "q.jsonl",
      '{"question": "a", "answer": []}',
      'q.jsonl:1: "answer" must be a list',
    ),
    (
      "q.jsonl",
      '{"question": "a", "answers": {"value": 3}}',
      'q.jsonl:1: "answer" must be a list',
    ),
    (
      "q.jsonl",
      '{"id": 7, "question": "a", "answer": ["b"]}\n'
      '{"id": "7", "question": "c", "answer": ["d"]}',
      'q.jsonl:2: the id "7" was used at',
    ),
    ("q.jsonl", "", "q.jsonl: holds no question"),
    ("q.tsv", "no tab", "q.tsv:1: expected question<TAB>"),
    ("q.tsv", "a\t['b'\n", "q.tsv:1: expected question<TAB>"),
    ("q.tsv", "a\t__import__('os')", "q.tsv:1: expected question<TAB>"),
    ("q.tsv", "a\t['b', 3]", 'q.tsv:1: "answer" must be a list'),
  ],
)
def test_bad_lines_are_named(tmp_path, name, text, message):
  (tmp_path / name).write_text(text)
  with pytest.raises(InputError) as e:
    qa.read_qa(tmp_path / name)
  assert message in str(e.value)


def test_missing_files_are_named(tmp_path):
  for name in ("q.tsv", "q.jsonl"):
    with pytest.raises(InputError, match="no such file"):
      qa.read_qa(tmp_path / name)


def test_rows(tok):
  questions = [
    qa.Question("0", "Who walked on the Moon?", ["Neil Armstrong", "Buzz"]),
    qa.Question("1", "Where?", ["W.*"], "", True, ("Warsaw",)),
  ]
  examples = qa.QaExamples(
    questions, tok, query_len=12, max_answers=3, max_answer_len=20
  )
  batch = examples.rows(np.array([1, -1, 0]), np.zeros((3, 2)))
  assert batch.example_ids.tolist() == [1, -1, 0]
  assert (batch.answer_lens > 0).sum(axis=1).tolist() == [1, 0, 2]
  assert (batch.answer_ids[1] == -1).all()
  warsaw = tok.encode("Warsaw")
  assert batch.answer_ids[0, 0, : len(warsaw)].tolist() == warsaw
  question = tok.encode("Who walked on the Moon?")[:10]
  row = batch.question.input_ids[2, 1 : 1 + len(question)]
  assert row.tolist() == question
