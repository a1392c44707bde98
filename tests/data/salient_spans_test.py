import sys

import pytest

from realm_jax.config import InputError
from realm_jax.data import salient_spans


def found(text, title=""):
  raw = text.encode()
  spans = salient_spans.annotate(text, title)
  assert spans == sorted(spans)
  return [raw[a:b].decode() for a, b, _ in spans], [s[2] for s in spans]


@pytest.mark.parametrize(
  "text, spans",
  [
    (
      "He was born in Warsaw on 7 November 1867.",
      ["Warsaw", "7 November 1867"],
    ),
    ("It ended on May 8, 1945, in Europe.", ["May 8, 1945", "Europe"]),
    ("She was active from 1903 until 1911.", ["1903", "1911"]),
    ("Walls of the 12th century stand in Zürich.", ["12th century", "Zürich"]),
    ("In 44 BC he met Julius Caesar.", ["44 BC", "Julius Caesar"]),
    ("It has 3.5 million people and 12% water.", ["3.5 million", "12%"]),
    ("The Bank of England lent money.", ["Bank of England"]),
    ("Nothing here stands out.", []),
    ("Cats sleep.", []),
    ("They met J. R. R. Tolkien there.", ["J. R. R. Tolkien"]),
    ("", []),
  ],
)
def test_rules(text, spans):
  assert found(text)[0] == spans


def test_a_sentence_start_is_a_name_only_if_known():
  assert found("Paris lies there. Cats like Paris.")[0] == ["Paris", "Paris"]
  assert found("Paris lies there.")[0] == []
  assert found("Paris lies there.", title="Paris")[0] == ["Paris"]


def test_labels():
  _, labels = found("On 1 May 1900 Max Planck moved 12 km.")
  assert labels == ["date", "entity", "number"]


def test_unknown_annotator_is_named():
  with pytest.raises(InputError, match='"rules", "spacy"'):
    salient_spans.make_annotator("bert")


def test_missing_spacy_names_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, "spacy", None)
  with pytest.raises(InputError, match=r"realm-jax\[ner\]"):
    salient_spans.make_annotator("spacy")


def test_spacy_behind_the_same_interface(monkeypatch):
  class Entity:
    start_char, end_char, label_ = 0, 6, "GPE"

  class FakeSpacy:
    def load(self, model, exclude):
      del model, exclude
      return self

    def pipe(self, texts, batch_size):
      del batch_size
      for _ in texts:
        yield type("Doc", (), {"ents": [Entity()]})

  monkeypatch.setitem(sys.modules, "spacy", FakeSpacy())
  annotate = salient_spans.make_annotator("spacy")
  assert annotate([("Zürich", ""), ("Jersey", "x")]) == [
    [(0, 7, "gpe")],
    [(0, 6, "gpe")],
  ]
