"""An index of a run's newest params: made once, in chunks, by any who share."""

import shutil

import jax
import numpy as np
import pytest

from realm_jax import files
from realm_jax.data.blocks import BlockStore
from realm_jax.retrieval import index, manifest, staging
from realm_jax.train import build_index

SMALL = "--config.chunk_blocks=3"  # 11 blocks: 4 chunks


@pytest.fixture
def run(demo, tmp_path):
  """A copy of the demo's run that has no index."""
  shutil.copytree(demo, tmp_path / "demo")
  return tmp_path / "demo" / "ict"


def test_an_index_is_made_once(run, start):
  outcome = start("build_index", f"--workdir={run}", SMALL)
  assert outcome.code == 0, outcome.err
  assert f"{run}/index/0: 11 blocks in " in outcome.err
  assert outcome.err.endswith(" GFLOP/s\n")
  block_emb, made = index.read_version(run, 0, {"params_step": 3})
  assert made["flops"] > 0
  assert [f for f in made["files"] if "/c/" in f] == [
    f"block_emb/c/{i}/0" for i in range(4)
  ]
  source = build_index.open_source(run)
  tokens = BlockStore(run.parent / "data/blocks").device_tokens(32)
  want = jax.jit(source.buckets.retrieval.embed_blocks)(
    {"embedder": source.params}, tokens
  )
  np.testing.assert_allclose(block_emb, want, rtol=1e-4, atol=1e-5)

  outcome = start("build_index", f"--workdir={run}")
  assert "index version 0 is of these params already" in outcome.err
  assert index.list_versions(run) == [0]


def test_it_computes_in_the_runs_precision(run):
  path = run / "config.json"
  files.write_json(path, {**files.read_json(path), "compute_dtype": "bfloat16"})
  source = build_index.open_source(run)
  assert source.buckets.retrieval.embedder.config.compute_dtype == "bfloat16"


def test_it_comes_after_the_versions_of_training(demo, start, tmp_path):
  shutil.copytree(demo, tmp_path / "demo")
  run = tmp_path / "demo" / "pretrain"
  assert start("build_index", f"--workdir={run}", "--config.keep=1").code == 0
  assert index.list_versions(run) == [5]


def test_a_damaged_version_is_mended_by_a_new_one(demo, start, tmp_path):
  shutil.copytree(demo, tmp_path / "demo")
  run = tmp_path / "demo" / "pretrain"
  (run / "index/4/manifest.json").write_text("{")
  outcome = start("build_index", f"--workdir={run}")
  assert outcome.code == 0 and "4/manifest.json:1: not JSON" in outcome.err
  assert index.list_versions(run) == [4, 5]
  manifest.verify(run / "index/5")


def test_a_full_disk_then_on(run, start, monkeypatch):
  """The chunks that are finished are not embedded again."""
  monkeypatch.setenv("REALM_FAILPOINT", "build_chunk_2:disk_full")
  outcome = start("build_index", f"--workdir={run}", SMALL)
  assert outcome.code == 2
  assert outcome.err.startswith("error: no space left on the disk of")
  monkeypatch.delenv("REALM_FAILPOINT")
  seen = []
  embed = build_index.LengthBuckets.embed
  monkeypatch.setattr(
    build_index.LengthBuckets,
    "embed",
    lambda self, params, tokens, on_batch: (
      seen.append(len(tokens.lens)), embed(self, params, tokens, on_batch)
    )[1],
  )  # fmt: skip
  outcome = start("build_index", f"--workdir={run}", SMALL)
  assert outcome.code == 0, outcome.err
  assert "6 of 11 blocks are embedded already" in outcome.err
  assert seen == [3, 2]
  manifest.verify(run / "index/0")


def test_shards_share_the_chunks(run, start):
  whole = run.parent / "whole"
  shutil.copytree(run, whole)
  assert start("build_index", f"--workdir={whole}", SMALL).code == 0
  outcome = start("build_index", f"--workdir={run}", SMALL, "--shard=1/3")
  assert outcome.code == 0
  assert "done; 3 of 4 chunks are missing, of shards 0, 2:" in outcome.err
  with staging.lock(run, shared=True):  # as a job that runs
    outcome = start("build_index", f"--workdir={run}", SMALL, "--shard=2/3")
    assert "others are at work, the last one publishes" in outcome.err
  assert index.list_versions(run) == []
  outcome = start("build_index", f"--workdir={run}", SMALL, "--shard=0/3")
  assert f"{run}/index/0: 11 blocks in " in outcome.err
  assert outcome.err.endswith(" GFLOP/s\n")
  np.testing.assert_array_equal(
    index.read_version(run, 0, {})[0], index.read_version(whole, 0, {})[0]
  )
  outcome = start("build_index", f"--workdir={run}", SMALL, "--shard=2/3")
  assert "index version 0 is of these params already" in outcome.err


def test_a_second_builder_is_told(run, start):
  with staging.lock(run):
    outcome = start("build_index", f"--workdir={run}")
  assert outcome.code == 2
  said = f"error: {run}/index: another builder is at work here: wait until"
  assert outcome.err.startswith(said)


@pytest.mark.parametrize(
  ("flag", "said"),
  [
    ("--shard=3/3", "error: --shard=3/3: wanted i/n with i from 0 to n - 1"),
    ("--shard=a", "error: --shard=a: wanted i/n"),
    ("--config.keep=0", "error: keep=0"),
    ("--config.chunk_blocks=0", "chunk_blocks=0: wanted 1 or more"),
  ],
)
def test_a_wrong_flag_is_named(run, start, flag, said):
  outcome = start("build_index", f"--workdir={run}", flag)
  assert outcome.code == 2
  assert said in outcome.err


def test_without_a_run(start, tmp_path):
  outcome = start("build_index", f"--workdir={tmp_path}")
  assert outcome.code == 2
  assert outcome.err == f"error: {tmp_path}/config.json: no such file\n"
