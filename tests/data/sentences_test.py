import sys

import pytest

from realm_jax.config import InputError
from realm_jax.data.sentences import make_splitter, split_sentences


@pytest.mark.parametrize(
  "text, sentences",
  [
    ("One here. Two there.", ["One here.", "Two there."]),
    ("No stop at the end", ["No stop at the end"]),
    ("Dr. J. R. R. Tolkien wrote it. He won.", None),
    ("It left the U.S. The crew stayed.", None),
    ("The U.S. Navy came. It won.", ["The U.S. Navy came.", "It won."]),
    ("Born c. 1200 in St. Gallen. Died old.", None),
    ('He said "Go!" Then he left.', ['He said "Go!"', "Then he left."]),
    ("It costs 3.5 million. 20 came.", ["It costs 3.5 million.", "20 came."]),
    (
      "the .net name. lower case follows",
      ["the .net name. lower case follows"],
    ),
    ("A title\nA line. More", ["A title", "A line.", "More"]),
    ("Why? Because.  ", ["Why?", "Because."]),
    ("  \n ", []),
    ("", []),
    (".", ["."]),
    ("Éa came. Órla left.", ["Éa came.", "Órla left."]),
  ],
)
def test_split(text, sentences):
  found = [text[a:b] for a, b in split_sentences(text)]
  if sentences is None:  # two sentences, whatever the abbreviations in them
    assert len(found) == 2
    assert " ".join(found) == text
  else:
    assert found == sentences


@pytest.mark.parametrize(
  "name, text, sentences",
  [
    (
      "sentencex",
      " Éa 😀 met Dr. Smith. He left the U.S. Navy.\n\n A line\nmore. ",
      ["Éa 😀 met Dr. Smith.", "He left the U.S. Navy.", "A line", "more."],
    ),
    (
      "sentencex:de",
      "Am 3. Mai kam er. Sie ging z. B. nach Bonn.",
      ["Am 3. Mai kam er.", "Sie ging z. B. nach Bonn."],
    ),
    ("sentencex", " \n ", []),
    ("sentencex", "", []),
    ("rules", "One here. Two there.", ["One here.", "Two there."]),
  ],
)
def test_named_splitters(name, text, sentences):
  split = make_splitter(name)
  assert [text[a:b] for a, b in split(text)] == sentences


@pytest.mark.parametrize("name", ["sentencex:", "punkt", "", "rules:de"])
def test_unknown_splitters(name):
  with pytest.raises(InputError, match=f'data.sentence_splitter="{name}"'):
    make_splitter(name)


def test_sentencex_is_not_there(monkeypatch):
  monkeypatch.setitem(sys.modules, "sentencex", None)
  with pytest.raises(InputError, match=r"pip install.*realm-jax\[sentences\]"):
    make_splitter("sentencex:fr")
