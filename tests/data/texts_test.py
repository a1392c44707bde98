import collections
import json

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data import salient_spans, text_writer, texts
from realm_jax.data.articles import read_jsonl
from realm_jax.data.sources import LeadQuestion

QUESTIONS = [
  LeadQuestion("city on a lake", "Zürich", "a2", "train"),
  LeadQuestion("was a physicist", "Marie Curie", "a1", "dev"),
  LeadQuestion("nowhere to be found", "Ghost", "missing", "test"),
]
NONE = np.zeros(0, np.int64)
RULES = salient_spans.make_annotator("rules")


def masked(record):
  raw = record.text.encode()
  return [raw[a:b].decode() for a, b, _ in record.spans]


def test_sentences_of_the_blocks(store):
  def sentences_of(blocks, skip=NONE):
    dropped = collections.Counter()
    made = texts.block_sentences(store, RULES, skip, blocks, dropped)
    return list(made), dropped

  records, _ = sentences_of(range(len(store)))
  sentences = [s for b in range(len(store)) for s in store.sentences(b)]
  assert [r.text for r in records] == sentences
  for r in records:
    assert r.text in store.text(r.own_block)
    assert r.gold_block == r.own_block
  by_text = {r.text: masked(r) for r in records}
  assert by_text["She was born in Warsaw in 1867."] == ["Warsaw", "1867"]
  assert by_text["Zürich is a city in Switzerland."] == [
    "Zürich",
    "Switzerland",
  ]
  skipped, dropped = sentences_of(range(len(store)), np.array([0, 3]))
  expected = [s for i, s in enumerate(sentences) if i not in (0, 3)]
  assert [r.text for r in skipped] == expected
  assert dropped == {text_writer.HELD_OUT: 2}
  ranges = range(2), range(2, len(store))
  parts = [sentences_of(part, np.array([0, 3]))[0] for part in ranges]
  assert [*parts[0], *parts[1]] == skipped


def test_lead_lines_mask_the_title(store):
  lines = list(texts.lead_lines(QUESTIONS, store))
  assert lines[0].text == "Zürich : city on a lake"
  assert masked(lines[0]) == ["Zürich"]
  assert [r.own_block for r in lines] == [-1, -1, -1]
  assert lines[0].gold_block == store.block_of_article("a2")[0]
  assert lines[2].gold_block == -1
  assert [r.split for r in lines] == ["train", "dev", "test"]


def test_sentences_with_a_held_out_question(store):
  sentences = [s for b in range(len(store)) for s in store.sentences(b)]
  found = texts.held_out_sentences(store, QUESTIONS)
  assert [sentences[i] for i in found] == ["Marie Curie was a physicist."]


def write(path, *records):
  path.write_text("".join(json.dumps(r) + "\n" for r in records))
  return path


@pytest.fixture
def own(store, tmp_path):
  texts.write_own_blocks(tmp_path / "own", store)
  return texts.OwnBlocks(tmp_path / "own")


def read(path, own, dropped=None):
  dropped = collections.Counter() if dropped is None else dropped
  return texts.read_texts(list(read_jsonl(path)), own, RULES, dropped)


def test_plain_texts_find_their_own_block(store, own, tmp_path):
  path = write(
    tmp_path / "t.jsonl",
    {"title": "Moon", "text": "Buzz Aldrin followed him. I saw Bonn."},
    {"title": "Mars", "text": "Buzz Aldrin followed him."},
  )
  records = list(read(path, own))
  own = [r.own_block for r in records]
  assert "Buzz Aldrin followed him." in store.sentences(own[0])
  assert own[1:] == [-1, -1]
  assert masked(records[1]) == ["Bonn"]


def test_annotated_texts_take_bytes(own, tmp_path):
  text = "Zürich grew. Genève too."
  raw = text.encode()
  ranges = lambda *words: [  # noqa: E731
    {
      "start": raw.index(w.encode()),
      "limit": raw.index(w.encode()) + len(w.encode()),
    }
    for w in words
  ]
  path = write(
    tmp_path / "t.jsonl",
    {
      "title": "x",
      "text": text,
      "spans": ranges("Zürich", "grew. Genève", "Genève"),
      "sentences": ranges("Zürich grew.", "Genève too."),
    },
  )
  records = list(read(path, own))
  assert [r.text for r in records] == ["Zürich grew.", "Genève too."]
  assert [masked(r) for r in records] == [["Zürich"], ["Genève"]]


def test_offsets_that_cut_a_character_are_counted(own, tmp_path):
  text = "Zürich 🏛️ ja."
  size = len(text.encode())

  def ranges(*pairs):
    return [{"start": a, "limit": b} for a, b in pairs]

  path = write(
    tmp_path / "t.jsonl",
    {
      "title": "x",
      "text": text,
      "spans": ranges((0, 2), (2, 7), (0, 7), (9, 12), (8, 12)),
      "sentences": ranges((0, 7), (0, 10), (8, size)),
    },
  )
  dropped = collections.Counter()
  records = list(read(path, own, dropped))
  assert [r.text for r in records] == ["Zürich", "🏛️ ja."]
  assert [masked(r) for r in records] == [["Zürich"], ["🏛"]]
  assert dropped == {text_writer.CUT_SPAN: 3, text_writer.CUT_SENTENCE: 1}


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"text": "a"}, 't.jsonl:1: lacks "title"'),
    ({"title": "a"}, 't.jsonl:1: lacks "text"'),
    (
      {"title": "a", "text": "abc", "spans": [[0, 1]]},
      't.jsonl:1: "spans" must be a list of objects',
    ),
    (
      {"title": "a", "text": "abc", "spans": [{"start": 1, "limit": 9}]},
      't.jsonl:1: "spans" has the range 1-9, but "text" has 3 bytes',
    ),
  ],
)
def test_bad_lines_are_named(own, tmp_path, fields, message):
  path = write(tmp_path / "t.jsonl", fields)
  with pytest.raises(InputError) as e:
    list(read(path, own))
  assert message in str(e.value)
