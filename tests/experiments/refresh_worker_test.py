"""Refresh by a worker as a person starts it: supervised, journalled, replayed."""

import contextlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from realm_jax.retrieval import index as versions
from realm_jax.retrieval import journal
from realm_jax.train import metrics
from tests import launched


def arguments(own, workdir, *more):
  return (
    "pretrain",
    "--config=configs/pretrain.py:smoke",
    f"--workdir={workdir}",
    *own.flags(),
    "--config.text_weights=(1.0,)",
    "--config.train.num_steps=12",
    "--config.train.checkpoint_every=2",
    "--config.refresh.mode=worker",
    "--config.refresh.every_steps=3",
    "--config.refresh.max_staleness_steps=5",
    "--config.refresh.poll_steps=1",
    "--config.refresh.keep=99",
    *more,
  )


@pytest.fixture(scope="module")
def live(own, start_failing, tmp_path_factory):
  """A run that started a worker itself, and what it said."""
  run = tmp_path_factory.mktemp("live") / "run"
  words = arguments(own, run, "--config.refresh.supervise=1")
  outcome = start_failing("nowhere:kill", *words)
  assert outcome.code == 0, outcome.err
  return run, outcome.err


@pytest.mark.nightly
def test_a_supervised_run(live):
  run, said = live
  assert "worker local-0: the run has ended" in said
  swaps = journal.read_swaps(run)
  assert swaps and swaps[0]["step"] <= 6
  newest = versions.latest_version(run)
  assert versions.read_manifest(run, newest)["params_step"] == 12
  lines = [x for x in metrics.read_metrics(run) if "loss" in x]
  assert [x["step"] for x in lines] == list(range(1, 13))
  for line in lines:
    assert line["index_staleness"] <= 5 and line["steps_past_bound"] == 0
    assert line["staleness_seconds"] > 0 and 0 <= line["refresh_share"] < 1
  assert {"workers_alive", "worker_silent_seconds"} <= lines[-1].keys()


def test_verify_reads_all_of_it(demo, start, tmp_path):
  run = tmp_path / "run"
  shutil.copytree(demo / "pretrain", run)
  outcome = start("verify", f"--workdir={run}")
  assert outcome.code == 0, outcome.err
  whole = versions.list_versions(run)
  assert outcome.out.count("files are as they were written") == len(whole) == 1
  assert outcome.out.count("as it was saved") == 1
  chunk = versions.version_path(run, whole[0]) / "block_emb/c/0/0"
  content = bytearray(chunk.read_bytes())
  content[50] ^= 1
  chunk.write_bytes(content)
  outcome = start("verify", f"--workdir={run}")
  assert outcome.code == 2
  assert outcome.err.startswith(f"error: {chunk} is damaged")
  assert outcome.out.count("as it was saved") == 1


@pytest.mark.nightly
def test_a_replay_of_it_is_the_same_bit_for_bit(live, own, start, tmp_path):
  run, replay = live[0], tmp_path / "replay"
  journal_of = f"--config.refresh.replay={run}/index/swaps.jsonl"
  outcome = start(*arguments(own, replay, journal_of))
  assert outcome.code == 0, outcome.err
  of_runs = [
    [
      {k: v for k, v in line.items() if k not in metrics.TIMINGS}
      for line in metrics.read_metrics(workdir)
    ]
    for workdir in (run, replay)
  ]
  assert of_runs[0] == of_runs[1]


@pytest.mark.nightly
def test_two_processes_and_a_worker(own, start, tmp_path):
  two, one = tmp_path / "two", tmp_path / "one"
  more = (
    "--config.mesh.data=-1",
    "--config.train.batch_size=8",
    "--config.train.num_steps=200",
    "--config.train.checkpoint_every=20",
    "--config.refresh.every_steps=20",
    "--config.refresh.max_staleness_steps=40",
    "--config.refresh.slice_size=4",
  )
  job = launched.start(
    "-m", "experiments.pretrain", *arguments(own, two, *more)[1:]
  )
  with _worker(two):
    code, said = launched.end(job, bound=500)
  assert code == 0, said
  swaps = journal.read_swaps(two)
  assert len(swaps) >= 5
  replay = f"--config.refresh.replay={two}/index/swaps.jsonl"
  outcome = start(*arguments(own, one, *more, replay))
  assert outcome.code == 0, outcome.err
  steps = [[(s["step"], s["version"]) for s in journal.read_swaps(run)]
           for run in (one, two)]  # fmt: skip
  assert steps[0] == steps[1]
  loss = [[x["loss"] for x in metrics.read_metrics(run) if "loss" in x]
          for run in (one, two)]  # fmt: skip
  assert len(loss[0]) == 200
  np.testing.assert_allclose(*loss, rtol=1e-3)
  apart = np.abs(np.subtract(*loss)).max()
  print(f"\n200 steps, {len(swaps)} swaps: losses differ by {apart:.1e}")


@contextlib.contextmanager
def _worker(run):
  """A worker beside, once the run has a directory."""
  while not (run / "config.json").exists():
    time.sleep(0.1)
  words = ("-m", "experiments.refresh_worker", f"--workdir={run}", "--id=w")
  worker = subprocess.Popen([sys.executable, *words], cwd=launched.ROOT)
  try:
    yield
    assert worker.wait(60) == 0
  finally:
    worker.kill()


def test_a_contract_that_no_worker_can_keep_is_refused(own, start, tmp_path):
  for more, named in (
    ("--config.train.checkpoint_every=4", "train.checkpoint_every=4"),
    ("--config.refresh.max_staleness_steps=4", "refresh.max_staleness_steps=4"),
    ("--config.refresh.replay=nowhere.jsonl", "refresh.replay=nowhere"),
  ):
    outcome = start(*arguments(own, tmp_path / "run", more))
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: config {named}")
  assert not (tmp_path / "run").exists()
