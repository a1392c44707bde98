import json
import pathlib

from realm_jax.data import qa_choice
from realm_jax.data.qa import Question

_BUCKETS = (
  pathlib.Path(__file__).parent.parent / "testdata" / "farmhash/buckets.jsonl"
)


def test_the_dev_split_is_tensorflows():
  lines = _BUCKETS.read_text(encoding="utf-8").splitlines()
  recorded = dict(json.loads(line) for line in lines)
  assert len(recorded) == 1000
  dev = {text for text in recorded if qa_choice.is_dev(text)}
  assert dev == {text for text, bucket in recorded.items() if bucket % 10 == 0}
  assert len(dev) == 104


def test_what_cannot_be_used_is_counted():
  chosen = qa_choice.choose(
    [
      Question("a", "who", ["Ada", " ", "Ada Augusta King of Lovelace"]),
      Question("b", "where", [""]),
      Question("c", "when", [r"19\d\d", "(", "a{9}{9}"], regex=True),
      Question("d", "who", ["Ada", "Lady Lovelace"]),
      Question("e", "how", ["("]),
    ],
    max_answer_words=4,
  )
  assert chosen.questions == [
    Question("a", "who", ["Ada", "Lady Lovelace"]),
    Question("c", "when", [r"19\d\d"], regex=True),
    Question("e", "how", ["("]),
  ]
  assert chosen.dropped == {
    "empty answers": 2,
    "answers of more than 4 words": 1,
    "questions without an answer left": 1,
    "invalid regular expressions": 2,
    "questions that repeat another": 1,
  }
  assert "2 empty answers, 1 answers of more" in qa_choice.describe(
    chosen.dropped
  )


def test_nothing_is_dropped_of_good_questions():
  questions = [Question("a", "who", ["one two three four five six"])]
  assert qa_choice.choose(questions) == (questions, {})
