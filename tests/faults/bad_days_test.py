"""Days on which the disk, the clock or the numbers fail."""

import contextlib
import os
import random
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.retrieval import index as versions
from realm_jax.retrieval import manifest
from realm_jax.train import checkpoint
from tests.faults import toy
from tests.faults.kills_test import follow, let_end, start
from tests.train import toy_run

pytestmark = pytest.mark.nightly
CONFIG = {"num_steps": 40, "max_staleness_steps": 20, "block_seconds": 5.0}
WHERE = (
  "version_load", "swap", "swap_written", "checkpoint_seal", "publish",
  "train_step_17",
)  # fmt: skip


@pytest.mark.parametrize("how", ["kill", "io_error", "disk_full"])
@pytest.mark.parametrize("where", WHERE)
def test_trainer_fails_where_it_hurts(server, tmp_path, count, where, how):
  run = tmp_path / "run"
  worker = start(server, run, "w")
  broken = server.start("train", run, fail_at=f"{where}:{how}", **CONFIG)
  code = broken.wait()
  if where == "version_load" and how != "kill":  # such a version is not used
    assert code == 2 and "is not used, 0 still is" in broken.log()
  elif how == "kill":
    assert code == -signal.SIGKILL
  else:
    assert code == 2 and "Traceback" not in broken.log(), broken.log()
  let_end({"train": server.start("train", run, **CONFIG), "worker": worker})
  follow(server, tmp_path / "whole", run, **CONFIG)
  assert toy.figures(run) == toy.figures(tmp_path / "whole")
  count(
    f"trainer, {how} at each of {len(WHERE)} fail points",
    1,
    "goes on, equal bit for bit",
  )


def test_clocks_that_jump_and_times_of_files_that_lie(server, tmp_path, count):
  run, rng = tmp_path / "run", random.Random(3)
  trainer = server.start(
    "with_jumping_clock", "train", run, step_seconds=0.02, **CONFIG
  )
  worker = server.start("with_jumping_clock", "work", run, name="w")
  scrambled = 0
  while trainer.poll() is None:
    for path in run.rglob("*"):
      with contextlib.suppress(FileNotFoundError):
        os.utime(path, (rng.uniform(0, 4e9),) * 2)
        scrambled += 1
    time.sleep(0.05)
  let_end({"train": trainer, "w": worker})
  follow(server, tmp_path / "whole", run, **CONFIG)
  assert toy.figures(run) == toy.figures(tmp_path / "whole")
  made = [
    versions.read_manifest(run, v)["params_step"]
    for v in versions.list_versions(run)
  ]
  assert made == sorted(set(made)) and len(made) > 1
  count(
    "times of files scrambled, clocks off by up to an hour",
    scrambled,
    "equal bit for bit",
  )


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 4 MB."""
  disk = tmp_path / "disk"
  disk.mkdir()
  command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
  try:
    subprocess.run(command, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError) as e:
    pytest.skip(f"no tmpfs can be mounted here: {e}")
  yield disk
  subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_that_recovers_without_a_restart(server, small_disk, count):
  run, filler = small_disk / "run", small_disk / "filler"
  trained = server.start("train", run, num_steps=10)
  assert trained.wait() == 0, trained.log()
  there = versions.list_versions(run)
  with contextlib.suppress(OSError), filler.open("wb", buffering=0) as f:
    while True:
      f.write(bytes(4096))
  worker = server.start("work", run, retries=1000)
  until = time.monotonic() + 20
  while "no space left" not in worker.log():
    assert time.monotonic() < until, worker.log()
    time.sleep(0.05)
  assert versions.list_versions(run) == there
  filler.unlink()
  assert worker.wait() == 0, worker.log()
  newest = versions.latest_version(run)
  assert newest not in there
  manifest.verify(versions.version_path(run, newest))
  count("a full disk", 1, "nothing half there, and the same worker published")


def test_losses_that_are_not_finite(tmp_path, count):
  rng = random.Random(4)
  for i in range(30):
    run, bad_step = tmp_path / f"run{i}", rng.randint(1, 24)
    seen = [b.example_ids for b in _batches(24)]
    bad = int(rng.choice(list(seen[bad_step - 1])))
    first = next(s for s, ids in enumerate(seen, 1) if bad in ids)
    kind = rng.choice(("bad_example", "bad_gradient"))
    with pytest.raises(InputError, match=f"is nan at step {first}, examples"):
      toy_run.run(run, **{kind: bad})
    checkpoints = checkpoint.Checkpoints(run)
    newest = checkpoints.latest() or 0
    checkpoints.close()
    assert newest < first and first - newest <= toy_run.DEFAULTS[
      "checkpoint_every"
    ] + 1  # fmt: skip
    if newest:
      params = checkpoint.restore_params(run)[0]
      assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
  count(
    "losses or gradients that are not finite",
    30,
    "stop at their step, the good checkpoint kept",
  )


def _batches(count):
  batches = toy_run.make_batches()
  return [next(batches) for _ in range(count)]


@pytest.mark.parametrize("at_bound", ["block", "continue", "inline"])
def test_a_worker_a_hundred_times_too_slow(server, tmp_path, count, at_bound):
  run = tmp_path / "run"
  config = CONFIG | {"at_bound": at_bound, "block_seconds": 60.0}
  worker = server.start("work", run, chunk_seconds=1.0)
  trainer = server.start("train", run, step_seconds=0.002, **config)
  assert trainer.wait() == 0, trainer.log()
  worker.kill()
  old = [line["index_staleness"] for line in toy.figures(run)]
  bound = CONFIG["max_staleness_steps"]
  assert max(old) > bound if at_bound == "continue" else max(old) == bound
  count(
    f"a worker 100x too slow, {at_bound}",
    1,
    f"index {max(old)} steps old, bound {bound}",
  )
