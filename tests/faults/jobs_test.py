"""Jobs of two processes, runs on other devices, workers that a run starts."""

import json
import os
import random
import shutil
import signal
import socket
import time

import numpy as np
import pytest

from realm_jax import files
from realm_jax.retrieval import journal
from realm_jax.train import checkpoint, metrics, sealed
from tests.faults.stops_test import until

pytestmark = pytest.mark.nightly


def start_job(server, function, *args, devices, **kwargs):
  """Two processes of one job; each is told where it belongs."""
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{s.getsockname()[1]}"
  return [
    server.start(
      function, *args, devices=devices, where=f"{address},2,{i}", **kwargs
    )
    for i in range(2)
  ]


def test_sigterm_in_two_processes(server, tmp_path, count):
  rng, slowest, lost = random.Random(5), 0.0, 0
  for i in range(20):
    run = tmp_path / f"run{i}"
    pair = start_job(
      server, "job", workdir=str(run), devices=2, num_steps=3000, pause=0.02,
      log_every=1, eval_every=0, checkpoint_every=0,
    )  # fmt: skip
    until(lambda run=run: _steps(run) > 0, 60.0)
    time.sleep(rng.uniform(0, 0.5))
    done = _steps(run)
    began = time.monotonic()
    for process in pair:
      process.send(signal.SIGTERM)
    codes = [process.wait(30) for process in pair]
    assert codes == [0, 0], pair[0].log() + pair[1].log()
    slowest = max(slowest, time.monotonic() - began)
    newest = max(sealed.numbers(checkpoint.folder(run)))
    assert _steps(run) >= done
    lost = max(lost, _steps(run) - newest)
  assert lost <= 1 and slowest < 30
  count(
    "SIGTERMs, 2 processes",
    20,
    f"{lost} steps lost at most, exit 0 in {slowest:.1f} s",
  )


def _steps(run) -> int:
  """Steps that the metrics tell of."""
  there = (run / "metrics.jsonl").exists() and metrics.read_metrics(run)
  return there[-1]["step"] if there else 0


@pytest.fixture(scope="module")
def on_eight(server, tmp_path_factory):
  """The prepared data, and a whole run on 8 devices."""
  folder = tmp_path_factory.mktemp("data")
  run = folder / "run"
  for function, *args in (("prepare", folder), ("pretrain", folder, run)):
    process = server.start(function, *args, devices=8)
    assert process.wait(120) == 0, process.log()
  return folder, run


@pytest.mark.parametrize("devices", ["1", "2", "4", "2x2"])
def test_saved_on_eight_devices_and_resumed(
  server, on_eight, tmp_path, count, devices
):
  folder, whole = on_eight
  run = tmp_path / "run"
  shutil.copytree(whole, run)
  shutil.rmtree(run / "checkpoints/12")  # as if it had been killed after step 6
  if devices == "2x2":
    job = start_job(server, "pretrain", folder, run, devices=2)
  else:
    job = [server.start("pretrain", folder, run, devices=int(devices))]
  for process in job:
    assert process.wait(120) == 0, process.log()
  said = job[0].log()
  assert "going on from step 6" in said
  assert "no longer those of one run bit for bit" in said
  assert f"as {run} began" in said  # its slices are counted once
  held = [files.read_json(path / "config.json") for path in (whole, run)]
  assert held[0] == held[1]
  apart = _apart(whole, run)
  assert apart < 1e-3
  assert [s["step"] for s in journal.read_swaps(run)] == [
    s["step"] for s in journal.read_swaps(whole)
  ]
  count(
    f"saved on 8 devices, resumed on {devices}",
    1,
    f"losses differ by {apart:.0e}",
  )


def _apart(whole, run) -> float:
  """How far the losses are from those of the run that was not interrupted."""
  lines, others = (
    [x for x in metrics.read_metrics(path) if "loss" in x]
    for path in (whole, run)
  )
  assert len(lines) == len(others) == 12
  for key in ("step", "index_version", "index_staleness"):
    assert [x[key] for x in lines] == [x[key] for x in others]
  losses = [np.array([x["loss"] for x in of]) for of in (lines, others)]
  assert (losses[0][:6] == losses[1][:6]).all()
  return float(np.abs(losses[0] - losses[1]).max())


def test_a_worker_that_is_killed_is_back(server, tmp_path, count):
  run, rng, slowest = tmp_path / "run", random.Random(6), 0.0
  trainer = server.start(
    "train_supervised", run, num_steps=100_000, step_seconds=0.02,
    every_steps=20,
  )  # fmt: skip
  beat, before = run / "workers/local-0.json", None

  def is_back():
    return beat.exists() and json.loads(beat.read_text())["pid"] != before

  for _ in range(20):
    began = time.monotonic()
    until(is_back)
    if before is not None:
      slowest = max(slowest, time.monotonic() - began)
    time.sleep(rng.uniform(0, 1.0))
    before = json.loads(beat.read_text())["pid"]
    os.kill(before, signal.SIGKILL)
  until(is_back)
  time.sleep(1.0)
  assert trainer.poll() is None, trainer.log()
  trainer.send(signal.SIGTERM)
  assert trainer.wait() == 0, trainer.log()
  said = trainer.log()
  assert said.count("worker local-0 ended with code -9") == 20
  assert "Traceback" not in said
  lines = (run / "chunks.jsonl").read_text().splitlines()
  redone = len(lines) - len(set(lines))
  assert redone <= 20 and slowest < 10
  swaps = journal.read_swaps(run)
  assert len(swaps) >= 3
  count(
    "kills of a worker that the run starts again",
    20,
    f"trainer saw 0 errors and {len(swaps)} swaps; back in {slowest:.1f} s at"
    f" most; {redone} chunks embedded twice",
  )
