import gzip
import json

import pytest

from realm_jax.config import InputError
from realm_jax.data import articles

LINE = '{"id": "%s", "title": "T", "text": "Some text."}\n'


def test_plain_gzip_and_folder_agree(tmp_path):
  (tmp_path / "b.jsonl").write_text(LINE % "2" + "\n")
  with gzip.open(tmp_path / "a.jsonl.gz", "wt") as f:
    f.write(LINE % "1")
  (tmp_path / "notes.txt").write_text("not data")
  assert [a.id for a in articles.read_articles(tmp_path)] == ["1", "2"]
  one = list(articles.read_articles(tmp_path / "a.jsonl.gz"))
  assert one == [articles.Article("1", "T", "Some text.")]


@pytest.mark.parametrize(
  "line, message",
  [
    ("{oops", "bad.jsonl:2: not JSON"),
    ("[1]", "bad.jsonl:2: expected a JSON object, got [1]"),
    ('{"id": "x", "text": "t"}', 'bad.jsonl:2: lacks "title"; found id, text'),
    (
      json.dumps({"id": 3, "title": "t", "text": "t"}),
      'bad.jsonl:2: "id" must be a text, got 3',
    ),
    (
      r'{"id": "x", "title": "t", "text": "ab\ud83d"}',
      'bad.jsonl:2: "text" has half a character at 2',
    ),
    (LINE % "1", 'bad.jsonl:2: the id "1" was used at'),
  ],
)
def test_bad_line_is_named(tmp_path, line, message):
  path = tmp_path / "bad.jsonl"
  path.write_text(LINE % "1" + line)
  with pytest.raises(InputError) as e:
    list(articles.read_articles(path))
  assert message in str(e.value)
  assert "\n" not in str(e.value)


def test_bad_files_are_named(tmp_path):
  (tmp_path / "empty").mkdir()
  (tmp_path / "x.jsonl.gz").write_bytes(b"no gzip")
  with gzip.open(tmp_path / "cut.jsonl.gz", "wt") as f:
    f.write(LINE % "1" * 100)
  whole = (tmp_path / "cut.jsonl.gz").read_bytes()
  (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-20])
  (tmp_path / "latin.jsonl").write_bytes('{"id": "ü"}'.encode("latin-1"))
  for name, message in {
    "missing.jsonl": "no such file or folder",
    "empty": "without .jsonl",
    "x.jsonl.gz": "broken gzip",
    "cut.jsonl.gz": "broken gzip",
    "latin.jsonl": "not UTF-8",
  }.items():
    with pytest.raises(InputError, match=message):
      list(articles.read_jsonl(tmp_path / name))
