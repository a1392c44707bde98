import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def capitals(texts, titles):
  """An annotator of a user's."""
  del titles
  return [
    [(i, i + 1, "x") for i, c in enumerate(text) if c.isupper()]
    for text in texts
  ]


def one_too_few(texts, titles):
  return capitals(texts[1:], titles)


def beyond(texts, titles):
  del titles
  return [[(0, len(text) + 1, "x")] for text in texts]


def test_an_annotator_of_the_users_own():
  annotate = salient_spans.make_annotator(f"{__name__}:capitals")
  pairs = [("éA b", ""), ("", ""), ("ZÜ", "t")]
  assert annotate(pairs) == [
    [(2, 3, "x")],
    [],
    [(0, 1, "x"), (1, 3, "x")],
  ]


@pytest.mark.parametrize(
  "name, message",
  [
    ("no_such_package:f", "cannot import it"),
    (":f", "cannot import it"),
    ("json:no_such_function", "cannot import it"),
    (f"{__name__}:one_too_few", "has spans of 1 texts, and was given 2"),
    (f"{__name__}:beyond", "the span 0-3 of a text with 2 characters"),
  ],
)
def test_what_is_wrong_with_a_users_annotator_is_named(name, message):
  with pytest.raises(InputError, match=message):
    salient_spans.make_annotator(name)([("ab", ""), ("cd", "")])


def test_a_long_text_is_cut_between_sentences(monkeypatch):
  monkeypatch.setattr(salient_spans, "_PIECE", 20)
  text = "Ein Ä steht. Zwei B. " + "x" * 45 + " Q. Y"
  pieces = []

  def find(texts):
    pieces.extend(texts)
    return capitals(texts, None)

  [spans] = salient_spans._by_pieces(find)([(text, "")])
  assert "".join(pieces) == text
  assert max(map(len, pieces)) == 20
  assert pieces[0] == "Ein Ä steht."
  raw = text.encode()
  assert [raw[a:b].decode() for a, b, _ in spans] == list("EÄZBQY")


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5))))
def test_of_spans_that_overlap_the_first_stays(made):
  spans = [(start, start + size, "") for start, size in made]
  kept = []
  for span in spans:
    if all(span[1] <= k[0] or span[0] >= k[1] for k in kept):
      kept.append(span)
  assert salient_spans._without_overlaps(spans) == sorted(kept)
