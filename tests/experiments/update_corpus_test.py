"""A corpus that lives: what comes is found, what goes is in no file any more."""

import json
import shutil

import jax
import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data.blocks import BlockStore
from realm_jax.retrieval import index, manifest
from realm_jax.serve.run import open_run
from realm_jax.train import build_index, indexing

VIENNA = "Vienna is the capital of Austria. It lies on the Danube."
MOON = "The Moon is a rock. It has no air at all."
ARTICLES = (
  {"id": "77", "title": "Vienna", "text": VIENNA},
  {"id": "2", "title": "Moon", "text": MOON},  # an update
)
SMALL = "--config.chunk_blocks=5"


@pytest.fixture(scope="module")
def indexed(demo, start, tmp_path_factory):
  """The demo with an index of the fine-tuned run's params: version 5."""
  folder = tmp_path_factory.mktemp("living") / "demo"
  shutil.copytree(demo, folder)
  assert start("build_index", f"--workdir={folder / 'finetune'}").code == 0
  lines = [json.dumps(article) + "\n" for article in ARTICLES]
  (folder / "new.jsonl").write_text("".join(lines))
  (folder / "old.jsonl").write_text("\n".join(_articles(folder)) + "\n")
  return folder


def _articles(folder):
  store = BlockStore(folder / "data/blocks")
  return [
    json.dumps(
      {
        "id": store.article_id(i),
        "title": store.title(i),
        "text": store.text(i),
      }
    )
    for i in range(len(store))
  ]


@pytest.fixture
def update(indexed, start, tmp_path):
  """A copy of the folder, and update(*flags) -> Outcome."""
  folder = tmp_path / "demo"
  shutil.copytree(indexed, folder)
  workdir = f"--workdir={folder / 'finetune'}"
  return folder, lambda *flags: start("update_corpus", workdir, *flags)


def _embedded(run, store):
  """[N, P], all blocks of a store by the run's params."""
  source = build_index.open_source(run)
  embed = jax.jit(source.buckets.retrieval.embed_blocks)
  tokens = store.take(np.arange(len(store)), 32)
  return np.asarray(embed({"embedder": source.params}, tokens))


def test_articles_come_and_go(update, start):
  folder, call = update
  run = folder / "finetune"
  old, _ = index.read_version(run, 5, {})
  new = f"--config.add={folder / 'new.jsonl'}"
  outcome = call(new, "--config.delete=3,9", SMALL)
  assert outcome.code == 0, outcome.err
  assert "version 5: 1 added, 1 updated, 2 deleted" in outcome.err
  block_emb, made = index.read_version(run, 6, {"params_step": 3})
  assert made["changed"] == {
    "parent": 5, "added": 1, "updated": 1, "deleted": 2, "unchanged": 0,
    "kept": 8,
  }  # fmt: skip
  store = BlockStore(run / "index/6/blocks")
  ids = [store.article_id(i) for i in range(len(store))]
  assert ids == ["0", "1", "4", "5", "6", "7", "8", "10", "77", "2"]
  kept = [0, 1, 4, 5, 6, 7, 8, 10]
  np.testing.assert_array_equal(block_emb[:8], old[kept])
  want = _embedded(run, store)
  np.testing.assert_allclose(block_emb, want, rtol=1e-4, atol=1e-5)

  # What is gone is in no file; what the run was trained on stays.
  for path in (run / "index/6").rglob("*"):
    if path.is_file():
      assert b"Vermeer" not in path.read_bytes()
      assert b"Armstrong" not in path.read_bytes()
  assert len(BlockStore(folder / "data/blocks")) == 11

  shown = "--config.evidence=3"
  asked = start("ask", f"--workdir={folder}", shown, VIENNA)
  assert "block 8  Vienna" in asked.out, asked
  asked = start("ask", f"--workdir={folder}", shown, "Dutch painter in Delft")
  assert asked.code == 0 and "Vermeer" not in asked.out
  asked = start(
    "ask", f"--workdir={folder}", "--config.index=5", "--config.evidence=3",
    "Vermeer was a Dutch painter. He lived in Delft all his life.",
  )  # fmt: skip
  assert "block 3  Vermeer" in asked.out, asked

  # The next build and the next update go on from there.
  outcome = start("build_index", f"--workdir={run}")
  assert "index version 6 is of these params already" in outcome.err
  assert call("--config.delete=77", SMALL).code == 0
  assert open_run(folder).index_version == 7
  assert len(open_run(folder).store) == 9


def test_another_corpus(update):
  """Replaced by another; what is in both need not be embedded."""
  folder, call = update
  lines = _articles(folder)
  path = folder / "other.jsonl"
  path.write_text("\n".join([lines[4], lines[1]]) + "\n" + json.dumps(
    ARTICLES[0]) + "\n")  # fmt: skip
  outcome = call(f"--config.replace={path}", SMALL)
  assert outcome.code == 0, outcome.err
  opened = open_run(folder)
  titles = [opened.store.title(i) for i in range(len(opened.store))]
  assert titles == ["Zürich", "Danube", "Vienna"]
  assert open_run(folder, "5").store.title(3) == "Vermeer"
  assert open_run(folder, str(folder / "finetune/index/5")).index_version == 5


def test_a_new_build_keeps_the_corpus(update, start):
  """A damaged version is built anew, with its own blocks."""
  folder, call = update
  run = folder / "finetune"
  assert call("--config.delete=3").code == 0
  row = run / "index/6/block_emb/c/0/0"
  row.write_bytes(row.read_bytes()[::-1])
  assert call("--config.delete=4").err.startswith(f"error: {row} is damaged")
  (run / "index/6/manifest.json").write_text("{")
  outcome = start("build_index", f"--workdir={run}")
  assert outcome.code == 0, outcome.err
  manifest.verify(run / "index/7")
  assert open_run(folder).index_version == 7
  assert open_run(folder).store.block_of_article("3") == []


def test_a_full_disk_then_on(update, monkeypatch):
  folder, call = update
  new = f"--config.add={folder / 'new.jsonl'}"
  monkeypatch.setenv("REALM_FAILPOINT", "build_chunk_1:disk_full")
  outcome = call(new, SMALL)
  assert outcome.code == 2 and "no space left on the disk" in outcome.err
  assert open_run(folder).index_version == 5
  monkeypatch.delenv("REALM_FAILPOINT")
  outcome = call(new, SMALL)
  assert "5 of 12 blocks are embedded already" in outcome.err
  manifest.verify(folder / "finetune/index/6")


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    ([], "an update takes --config.add=FILE.jsonl and --config.delete=IDS"),
    (["replace=new.jsonl", "delete=1"], "or --config.replace=FILE.jsonl alone"),
    (["delete=3,zz"], 'delete: the corpus has no article "zz"'),
    (["add=new.jsonl", "delete=2"], 'article "2" is to be added and deleted'),
    (["add=old.jsonl"], "nothing to change"),
    (["add=none.jsonl"], "none.jsonl: no such file or folder"),
    (["delete_file=none.txt"], "--config.delete_file=none.txt: no such file"),
    (["add=bad.jsonl"], "bad.jsonl:1: not JSON"),
  ],
)
def test_what_cannot_be_is_named(indexed, start, monkeypatch, flags, said):
  monkeypatch.chdir(indexed)
  (indexed / "bad.jsonl").write_text("{\n")
  run = indexed / "finetune"
  flags = [f"--config.{flag}" for flag in flags]
  outcome = start("update_corpus", f"--workdir={run}", *flags)
  assert outcome.code == 2
  assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
  assert said in outcome.err
  assert index.list_versions(run) == [4, 5]
  assert not (run / "index/.build").exists()


def test_an_index_of_other_params_is_not_mixed(indexed, start):
  run = f"--workdir={indexed / 'pretrain'}"
  outcome = start("update_corpus", run, "--config.delete=3")
  assert outcome.code == 2
  assert "4/manifest.json: template is '', but" in outcome.err
  outcome = start(
    "update_corpus", f"--workdir={indexed / 'ict'}", "--config.delete=3"
  )
  assert "no version to update: run experiments.build_index" in outcome.err


def test_training_does_not_go_back_to_the_old_corpus(update):
  folder, call = update
  assert call("--config.delete=3").code == 0
  with pytest.raises(InputError, match="6/blocks are another corpus than this"):
    indexing.index_at(3, None, None, None, folder / "finetune")
