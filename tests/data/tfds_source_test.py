"""tfds without TensorFlow, its data mocked as tfds itself does it."""

import collections

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data import qa, salient_spans, texts, tfds_source

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.mark.parametrize(
  "name",
  [
    "natural_questions_open",
    "web_questions",
    "trivia_qa/unfiltered.nocontext",
    "squad",
  ],
)
def test_questions_of_mocked_data_sets(name):
  with tfds.testing.mock_data(num_examples=3):
    questions = qa.read_qa(f"tfds:{name}:train")
  assert len(questions) == 3
  assert all(isinstance(a, str) for q in questions for a in q.answers)


def test_salient_spans_of_a_mocked_data_set(store, tmp_path):
  text = "In Zürich lived Ada."
  raw = text.encode()
  example = {
    "title": b"Ada",
    "text": raw,
    "spans": {
      "start": np.array([3, 17], np.int32),
      "limit": np.array([10, 20], np.int32),
      "type": np.array([b"LOC", b"PER"], object),
    },
  }

  def as_data_source(self, *args, **kwargs):
    del self, args, kwargs
    return [example, example]

  name = "tfds:salient_span_wikipedia/sentences"
  with tfds.testing.mock_data(as_data_source_fn=as_data_source):
    found = list(tfds_source.read(name))
  texts.write_own_blocks(tmp_path / "own", store)
  own, rules = (
    texts.OwnBlocks(tmp_path / "own"),
    salient_spans.make_annotator("rules"),
  )
  records = list(texts.read_texts(found, own, rules, collections.Counter()))
  assert [r.text for r in records] == [text, text]
  assert [raw[a:b].decode() for a, b, _ in records[0].spans] == [
    "Zürich",
    "Ada",
  ]


def test_an_unknown_data_set_is_one_clear_line():
  with pytest.raises(InputError, match="tfds build no_such_data_set") as e:
    list(tfds_source.read("tfds:no_such_data_set"))
  assert "\n" not in str(e.value)
