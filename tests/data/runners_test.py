"""Shards are the same whoever makes them, and are made once."""

import bz2
import json
import os
import sys

import pytest

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data import article_shards, block_shards, blocks, corpora, pages
from realm_jax.data.runners import Runner
from tests.data.dumps import dump, page
from tests.data.tfrecords import records
from tests.data.toy_step import Write

TEXT = "Ulm stands on the Danube. It had 126,000 people in 2018. " * 9


@pytest.fixture
def names(tmp_path):
  """A dump, a JSONL file with an id of the dump, and blocks."""
  made = [page(i, f"T{i}", f"[[Ulm {i}]] {TEXT}") for i in range(20, 33)]
  made[4:4] = [page(70, "Void", "{{x}}"), page(71, "R", "#redirect [[T20]]")]
  (tmp_path / "w.xml.bz2").write_bytes(bz2.compress(dump(*made)))
  lines = [
    {"id": f"{i}", "title": f"J{i}", "text": TEXT[: 10 * i]}
    for i in (0, 7, 25, 9)
  ]
  lines[3]["text"] = "\x00\x01"
  (tmp_path / "j.jsonl").write_text("".join(map(_line, lines)))
  (tmp_path / "o").mkdir()
  for name, texts in (
    ("blocks", [TEXT.encode(), b""]),
    ("titles", [b"A", b"B"]),
  ):
    (tmp_path / "o" / f"{name}.tfr").write_bytes(records(*texts))
  return f"{tmp_path}/w.xml.bz2,{tmp_path}/j.jsonl,orqa:{tmp_path}/o"


def _line(record):
  return json.dumps(record) + "\n"


def make(names, directory, runner, tok, shard_chars=3000, max_pages=0):
  """Both steps and the merging of their shards; returns the store's hashes."""
  step = article_shards.MakeArticles(max_pages, shard_chars)
  jobs = step.jobs(corpora.parts(names))
  articles = runner.run(step, jobs, directory / "articles")
  if not (directory / "tokenizer").exists():
    tok.save(directory / "tokenizer")
  packed = runner.run(
    block_shards.MakeBlocks(directory / "tokenizer", 40),
    [articles],
    directory / "packed",
  )
  blocks.merge_block_stores(directory / "blocks", packed, tok, 40)
  found = sorted((directory / "blocks").iterdir())
  return {path.name: files.sha256_file(path) for path in found}, len(packed)


def test_every_runner_makes_the_same_store(names, tmp_path, tok):
  one, num_shards = make(names, tmp_path / "1", Runner(), tok)
  assert num_shards > 4
  two, _ = make(names, tmp_path / "2", Runner(workers=2), tok)
  few, num_few = make(names, tmp_path / "3", Runner(), tok, shard_chars=10**6)
  assert num_few == 3
  assert one == two == few


def test_beam_makes_the_same_store(names, tmp_path, tok):
  pytest.importorskip("apache_beam", reason="extra beam is not installed")
  one, _ = make(names, tmp_path / "1", Runner(), tok)
  assert make(names, tmp_path / "2", Runner("beam"), tok)[0] == one
  with pytest.raises(InputError, match=r"^the item is bad$"):
    Runner("beam").run(Write(), [["a", "bad"]], tmp_path / "3")


def test_everything_dropped_is_counted(names, tmp_path, tok):
  make(names, tmp_path, Runner(), tok)
  store = blocks.BlockStore(tmp_path / "blocks")
  dump_counts, lines, whole = store.meta["sources"].values()
  assert dump_counts == {
    pages.PAGES: 15,
    pages.ARTICLES: 13,
    pages.EMPTY: 1,
    pages.REDIRECT: 1,
  }
  assert lines == {
    pages.PAGES: 4,
    pages.ARTICLES: 2,
    pages.EMPTY: 1,
    pages.SAME_ID: 1,  # 25, of the dump
    pages.NO_WORDPIECE: 1,
  }
  assert whole == {pages.PAGES: 2, pages.ARTICLES: 2}
  assert store.num_articles == 17
  assert store.text(len(store) - 2) == TEXT  # one block, though it is too long
  assert len(store.body_ids(len(store) - 2)) == 40 - 3 - 1
  assert store.text(len(store) - 1) == ""
  ids = [store.article_id(i) for i in range(len(store))]
  assert ids == sorted(ids, key=[*map(str, range(20, 33)), "7", "0", "1"].index)


@pytest.mark.parametrize("max_pages", [1, 5, 14])
def test_a_limit_takes_the_first_pages(names, tmp_path, tok, max_pages):
  make(names, tmp_path, Runner(), tok, max_pages=max_pages)
  counts = blocks.BlockStore(tmp_path / "blocks").meta["sources"].values()
  kinds = (pages.ARTICLES, pages.EMPTY, pages.SAME_ID)
  assert sum(sum(x.get(k, 0) for k in kinds) for x in counts) == max_pages


def test_shards_that_are_there_are_not_made_again(tmp_path, monkeypatch):
  monkeypatch.setenv("REALM_FAILPOINT", "shard:raise")
  parts = [["a", "b"], ["c"]]
  with pytest.raises(RuntimeError, match="fail point shard"):
    Runner().run(Write(), parts, tmp_path)
  monkeypatch.delenv("REALM_FAILPOINT")
  first = tmp_path / "00000-000000"
  assert files.read_json(first) == ["a", os.getpid()]
  files.write_json(first, "kept")
  paths = Runner().run(Write(), parts, tmp_path)
  made = [files.read_json(path) for path in paths]
  assert made == ["kept", ["b", os.getpid()], ["c", os.getpid()]]
  monkeypatch.setattr(Write, "split", None)  # nor read again
  assert Runner().run(Write(), parts, tmp_path) == paths


def test_a_pool_of_processes(tmp_path):
  paths = Runner(workers=2).run(Write(), [["a", "b", "c"]], tmp_path / "1")
  items, makers = zip(*map(files.read_json, paths), strict=True)
  assert items == ("a", "b", "c")
  assert os.getpid() not in makers
  with pytest.raises(InputError, match=r"^the item is bad$"):
    Runner(workers=2).run(Write(), [["a", "bad"]], tmp_path / "2")
  with pytest.raises(InputError, match=r"a process of the pool died.*same"):
    Runner(workers=2).run(Write(), [["a", "die"]], tmp_path / "3")


def test_no_item_no_shard(tmp_path):
  assert Runner(workers=3).run(Write(), [[], []], tmp_path) == []


@pytest.mark.parametrize(
  "values, message",
  [
    (("spark",), 'data.runner="spark": wanted one of local, beam'),
    (("local", -1), "data.workers=-1: wanted 0"),
  ],
)
def test_bad_runners_are_named(values, message):
  with pytest.raises(InputError, match=message):
    Runner(*values)


@pytest.mark.parametrize("args", ["--runner", "--x='"])
def test_bad_options_of_beam_are_one_line(args, capfd):
  pytest.importorskip("apache_beam", reason="extra beam is not installed")
  with pytest.raises(InputError, match=r"data\.beam_args=.*not options of"):
    Runner("beam", beam_args=args)
  assert capfd.readouterr().err == ""


def test_missing_beam_names_the_extra(monkeypatch):
  module = "apache_beam.options.pipeline_options"
  monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(InputError, match=r"realm-jax\[beam\]"):
    Runner("beam")
