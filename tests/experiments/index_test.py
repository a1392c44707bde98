"""index list, verify, diff and gc as a person calls them."""

import json
import re
import shutil

import numpy as np
import pytest

from realm_jax.retrieval import index, journal, staging


@pytest.fixture
def command(demo, start, tmp_path):
  """A copy of the demo's fine-tuned run, and command(*words) -> Outcome.

  Versions: 4 of training, 5 built, 6 with an article less and one more.
  """
  shutil.copytree(demo, tmp_path / "demo")
  run = tmp_path / "demo/finetune"
  journal.append_swap(run, {"step": 2, "version": 4})
  flag = f"--workdir={run}"
  (run / "new.jsonl").write_text(
    json.dumps({"id": "77", "title": "Vienna", "text": "A town. It is old."})
  )
  keep = "--config.keep=5"
  for name, *more in (
    ("build_index",),
    ("update_corpus", f"--config.add={run}/new.jsonl", "--config.delete=0"),
  ):
    outcome = start(name, flag, keep, "--config.chunk_blocks=7", *more)
    assert outcome.code == 0, outcome.err
  return run, lambda *words: start("index", flag, *words)


def test_list(command):
  _, call = command
  head, *lines = call("list").out.splitlines()
  assert head.split()[:3] == ["version", "step", "blocks"]
  cells = [re.split(r"\s{2,}", line) for line in lines]
  assert [line[:5] for line in cells] == [
    ["4", "2", "11", "16", "float32"],
    ["5", "3", "11", "16", "float32"],
    ["6", "3", "11", "16", "float32"],
  ]
  assert [line[-2:] for line in cells] == [
    ["step 2", "the data's"],
    ["-", "the data's"],
    ["-", "of version 5: 1 added, 0 updated, 1 deleted"],
  ]


def test_verify_names_the_damage(command):
  run, call = command
  outcome = call("verify")
  assert (outcome.code, outcome.out.count("are as they were written")) == (0, 3)
  tokens = run / "index/6/blocks/tokens.npy"
  tokens.write_bytes(tokens.read_bytes()[:-1] + b"\xff")
  outcome = call("verify")
  assert outcome.code == 2
  assert outcome.out.count("are as they were written") == 2
  assert outcome.err.startswith(f"error: {tokens} is damaged (sha256 differs)")
  assert call("verify", "4", "5").code == 0
  assert "index/9: no such index version" in call("verify", "9").err
  (run / "index/6/manifest.json").write_text("{}")
  assert "6  " in call("list").out and "is damaged" in call("list").out


def test_diff(command):
  _, call = command
  out = call("diff", "5", "6", "--config.queries=9", "--config.k=3").out
  assert re.search(r"overlap@3 of 9 queries: 0\.\d{3}\n", out), out
  assert "blocks: 10 in both, 1 in the first only, 1 in the second only" in out
  assert "rows changed: 0 of 10" in out
  out = call("diff", "4", "5").out
  assert "rows changed: 11 of 11, by" in out


def test_gc(command):
  run, call = command
  with staging.lock(run):
    assert "another builder is at work" in call("gc").err
  with staging.Staging(run, {"params_step": 2}) as stage:
    stage.open_rows((3, 2), np.float32, 2)
  (run / "index/.old-3-77").mkdir()
  row = run / "index/6/block_emb/c/0/0"
  row.write_bytes(b"x" + row.read_bytes())
  outcome = call(
    "gc", "--config.keep=1"
  )  # the newest, and the newest whole one
  assert outcome.out == "deleted: .build, .old-3-77, 4\n"
  assert index.list_versions(run) == [5, 6]
  assert call("gc").out == "deleted: nothing\n"
  with staging.Staging(run, {"params_step": 3}):
    assert call("gc").out == "deleted: nothing\n"  # it may go on


@pytest.mark.parametrize(
  "words",
  [[], ["lits"], ["diff", "1"], ["verify", "x"], ["gc", "1"], ["list", "2"]],
)
def test_other_words_are_named(start, demo, words):
  outcome = start("index", f"--workdir={demo / 'finetune'}", *words)
  assert outcome.code == 2
  assert outcome.err.startswith(f"error: {' '.join(words)!r}: wanted list, ve")


@pytest.mark.parametrize("word", ["list", "verify", "gc"])
def test_without_versions(start, demo, word):
  outcome = start("index", f"--workdir={demo / 'ict'}", word)
  assert outcome.code == 2
  assert "ict/index: no index version: run experiments.build_in" in outcome.err
