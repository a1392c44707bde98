"""Every kind of source gives the same articles that were put in."""

import bz2
import gzip
import json

import pytest

from realm_jax.config import InputError
from realm_jax.data import corpora, pages
from realm_jax.data.articles import Article
from tests.data.dumps import dump, page
from tests.data.tfrecords import example, records


def read(name):
  """What the pages of a source become."""
  return [
    article or said
    for part in corpora.parts(name)
    for article, said in (
      corpora.make_article(part, p) for p in corpora.read(part)
    )
  ]


def test_dumps_of_a_folder_in_the_order_of_their_names(tmp_path):
  second = dump(page(4, "Bonn"), page(5, "A", "x: {{disambig}}"))
  first = dump(page(9, "Ulm", "[[A|B]] {{c}}"), page(10, "Void", "{{c}}"))
  (tmp_path / "w.xml-p1p3.bz2").write_bytes(bz2.compress(first))
  (tmp_path / "w.xml-p4p9.bz2").write_bytes(bz2.compress(second))
  (tmp_path / "md5sums.txt").write_text("x")
  assert [p.kind for p in corpora.parts(str(tmp_path))] == ["dump", "dump"]
  assert read(str(tmp_path)) == [
    Article("9", "Ulm", "B"),
    pages.EMPTY,
    Article("4", "Bonn", "It stands here."),
    pages.DISAMBIGUATION,
  ]
  assert len(corpora.hashes([str(tmp_path)])) == 2


def test_broken_markup_is_said_of_an_article_that_is_kept(tmp_path):
  (tmp_path / "w.xml").write_bytes(dump(page(1, "T", "Good.\nbad {{ one")))
  [part] = corpora.parts(str(tmp_path / "w.xml"))
  [found] = corpora.read(part)
  article = Article("1", "T", "Good.")
  assert corpora.make_article(part, found) == (article, pages.BROKEN)


def test_what_wikiextractor_wrote(tmp_path):
  lines = [
    {
      "id": "12",
      "url": "u",
      "title": "R&amp;D",
      "text": "R&amp;D\n\nIt &lt;3.",
    },
    {"id": "7", "title": "List of x", "text": "List of x\n\nNone."},
    {"id": "8", "title": "Nil", "text": ""},
  ]
  for folder, of_file in (("AB", lines[2:]), ("AA", lines[:2])):
    (tmp_path / folder).mkdir()
    text = "".join(json.dumps(line) + "\n" for line in of_file)
    (tmp_path / folder / "wiki_00").write_text(text)
  name = f"wikiextractor:{tmp_path}"
  assert read(name) == [Article("12", "R&D", "It <3."), pages.LIST, pages.EMPTY]
  assert len(corpora.hashes([name])) == 2
  (tmp_path / "AA" / "wiki_00").write_text("<doc id=3>\n")
  with pytest.raises(InputError, match=r"wiki_00:1: not JSON .* --json"):
    read(name)
  with pytest.raises(InputError, match="no wiki_"):
    corpora.hashes([f"wikiextractor:{tmp_path / 'AB' / 'none'}"])


def test_blocks_of_orqa_keep_their_rows(tmp_path):
  (tmp_path / "blocks.tfr").write_bytes(
    records("One é.".encode(), b"", b"Three.")
  )
  (tmp_path / "titles.tfr").write_bytes(records(b"A", b"A", b"List of B"))
  name = f"orqa:{tmp_path}"
  assert corpora.parts(name)[0].whole
  assert read(name) == [
    Article("0", "A", "One é."),
    Article("1", "A", ""),
    Article("2", "List of B", "Three."),
  ]
  (tmp_path / "titles.tfr").write_bytes(records(b"A", b"A"))
  with pytest.raises(InputError, match=r"titles\.tfr: ends after 2 records"):
    read(name)
  (tmp_path / "titles.tfr").unlink()
  with pytest.raises(InputError, match=r"titles\.tfr: no such file"):
    corpora.hashes([name])


def test_records_of_realm_in_the_order_of_their_shards(tmp_path):
  for number, text in ((1, b"Two."), (0, b"One.")):
    path = tmp_path / f"docs-0000{number}-of-00002.gz"
    raw = records(example(title=b"T", body=text))
    path.write_bytes(gzip.compress(raw))
  name = f"realm:{tmp_path}/docs-*.gz"
  assert read(name) == [Article("0", "T", "One."), Article("1", "T", "Two.")]
  assert len(corpora.hashes([name])) == 2
  path.write_bytes(gzip.compress(records(example(title=b"T"))))
  with pytest.raises(InputError, match='record 0: lacks one text "body"'):
    read(name)
  path.write_bytes(gzip.compress(records(example(title=b"\xff", body=b"x"))))
  with pytest.raises(InputError, match="record 0 is not UTF-8"):
    read(name)
  with pytest.raises(InputError, match="no file of that name"):
    corpora.hashes(["realm:nowhere*"])


def test_annotated_records_of_realm(tmp_path):
  (tmp_path / "p.gz").write_bytes(gzip.compress(records(_annotated([0, 7]))))
  [(place, record)] = corpora.records(f"realm:{tmp_path}/p*")
  assert place == f"{tmp_path}/p.gz: record 0"
  assert record == {
    "title": "T",
    "text": "Zürich. It is.",
    "sentences": [],
    "spans": [{"start": 0, "limit": 7}, {"start": 7, "limit": 9}],
  }
  (tmp_path / "p.gz").write_bytes(gzip.compress(records(_annotated([0]))))
  with pytest.raises(InputError, match="1 span_byte_start, 2 span_byte_limit"):
    list(corpora.records(f"realm:{tmp_path}/p*"))


def _annotated(starts):
  return example(
    title=b"T",
    text="Zürich. It is.".encode(),
    span_byte_start=starts,
    span_byte_limit=[7, 9],
  )


WIKI40B = (
  "\n_START_ARTICLE_\n{}\n_START_SECTION_\nLife\n_START_PARAGRAPH_\nIt is."
  "_NEWLINE_Two.\n_START_PARAGRAPH_\nMore."
)


@pytest.mark.parametrize(
  "name, examples",
  [
    (
      "wiki40b/en",
      [
        {"wikidata_id": f"Q{i}".encode(), "text": WIKI40B.format(t).encode()}
        for i, t in enumerate(("Ulm", "Index of x"))
      ],
    ),
    (
      "wikipedia/20230601.en",
      [
        {"title": t.encode(), "text": b"It is.\nTwo.\nMore."}
        for t in ("Ulm", "Index of x")
      ],
    ),
  ],
)
def test_wikipedia_of_tfds(name, examples):
  tfds = pytest.importorskip("tensorflow_datasets")
  mocked = tfds.testing.mock_data(as_data_source_fn=lambda *_, **__: examples)
  with mocked:
    article, dropped = read(f"tfds:{name}")
  assert article[1:] == ("Ulm", "It is.\nTwo.\nMore.")
  assert (
    article.id == "Q0" if "wikidata_id" in examples[0] else f"tfds:{name}:0"
  )
  assert dropped == pages.LIST
