"""Bounds that bite, stops that are asked for: each ends as the contract says."""

import signal
import time

import pytest

from realm_jax.retrieval import index as versions
from realm_jax.train import checkpoint, sealed
from tests.faults import toy

BOUND = 20
CONFIG = {"num_steps": 45, "max_staleness_steps": BOUND, "step_seconds": 0.002}


def staleness(run) -> list[int]:
  return [line["index_staleness"] for line in toy.figures(run)]


def newest(run) -> int:
  return max(sealed.numbers(checkpoint.folder(run)), default=0)


def until(what, seconds=30.0):
  end = time.monotonic() + seconds
  while not what():
    assert time.monotonic() < end, "waited too long"
    time.sleep(0.02)


def test_without_a_worker_it_saves_and_stops_and_goes_on_with_one(
  server, tmp_path
):
  run = tmp_path / "run"
  stopped = server.start("train", run, **CONFIG, block_seconds=0.2)
  assert stopped.wait() == 2
  assert "none was ever seen: start one with python -m" in stopped.log()
  assert newest(run) == BOUND + 1
  assert staleness(run) == list(range(BOUND + 1))
  worker = server.start("work", run)
  trainer = server.start("train", run, **CONFIG)
  assert (trainer.wait(), worker.wait()) == (0, 0), trainer.log()
  lines = toy.figures(run)
  assert [line["step"] for line in lines] == list(range(1, 46))
  assert max(staleness(run)) <= BOUND


@pytest.mark.parametrize("at_bound", ["block", "continue", "inline"])
def test_a_worker_that_is_too_slow(server, tmp_path, at_bound):
  run = tmp_path / "run"
  worker = server.start("work", run, chunk_seconds=0.1)
  trainer = server.start("train", run, **CONFIG, at_bound=at_bound)
  assert (trainer.wait(), worker.wait()) == (0, 0), trainer.log()
  old = staleness(run)
  if at_bound == "continue":
    assert max(old) > BOUND
    late = [line["steps_past_bound"] for line in toy.figures(run)]
    assert late == [max(0, steps - BOUND) for steps in old]
  else:
    assert max(old) == BOUND
  assert trainer.log().count(f"refresh.at_bound={at_bound}") >= 1
  steps = [
    versions.read_manifest(run, v)["params_step"]
    for v in versions.list_versions(run)
  ]
  assert steps == sorted(set(steps))


def test_sigterm_while_it_waits_for_a_worker(server, tmp_path):
  run = tmp_path / "run"
  trainer = server.start("train", run, **CONFIG, block_seconds=60)
  until(lambda: "refresh.at_bound=block" in trainer.log())
  trainer.send(signal.SIGTERM)
  assert trainer.wait(20) == 0, trainer.log()
  assert newest(run) == BOUND + 1
  assert f"stopped after step {BOUND + 1}" in trainer.log()


def test_sigterm_ends_trainer_and_worker_well(server, tmp_path):
  run, config = tmp_path / "run", CONFIG | {"step_seconds": 0.02}
  worker = server.start("work", run)
  trainer = server.start("train", run, **config)
  until(lambda: newest(run) >= 10)
  twin = server.start("work", run)
  assert twin.wait() == 2 and "a worker w is at work here" in twin.log()
  for process in (trainer, worker):
    process.send(signal.SIGTERM)
  assert (trainer.wait(20), worker.wait(20)) == (0, 0), worker.log()
  assert newest(run) == toy.figures(run)[-1]["step"]  # no step is lost
