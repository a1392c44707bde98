"""An index of a run's newest params, made once and no more."""

import shutil

from realm_jax.retrieval import index


def test_an_index_is_made_once(demo, start, tmp_path):
  shutil.copytree(demo, tmp_path / "demo")
  run = tmp_path / "demo" / "ict"
  outcome = start("build_index", f"--workdir={run}")
  assert outcome.code == 0, outcome.err
  assert f"{run}/index/0: 11 blocks" in outcome.err
  index.read_version(run, 0, {"params_step": 3})

  outcome = start("build_index", f"--workdir={run}")
  assert "index version 0 is of these params already" in outcome.err
  assert index.list_versions(run) == [0]


def test_it_comes_after_the_versions_of_training(demo, start, tmp_path):
  shutil.copytree(demo, tmp_path / "demo")
  run = tmp_path / "demo" / "pretrain"
  assert start("build_index", f"--workdir={run}", "--config.keep=1").code == 0
  assert index.list_versions(run) == [5]


def test_without_a_run(start, tmp_path):
  outcome = start("build_index", f"--workdir={tmp_path}")
  assert outcome.code == 2
  assert outcome.err == f"error: {tmp_path}/config.json: no such file\n"
