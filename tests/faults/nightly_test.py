"""What takes minutes: every fail point, races, flipped bits."""

import random
import shutil
import signal
import time

import pytest

from realm_jax.config import InputError
from realm_jax.retrieval import index as versions
from realm_jax.retrieval import manifest
from realm_jax.train import checkpoint, sealed
from tests.faults import toy
from tests.faults.kills_test import follow, let_end, redone, start

pytestmark = pytest.mark.nightly
WHERE = (
  "publish", "build_chunk_3", "build_ledger_2", "worker_publish",
  "index_manifest", "index_publish", "index_published",
)  # fmt: skip
CONFIG = {"num_steps": 40, "max_staleness_steps": 20}


def checkpoint_of(server, run, steps=10):
  """Trains a run to a checkpoint, with more steps to go."""
  process = server.start("train", run, num_steps=steps)
  assert process.wait() == 0, process.log()


@pytest.mark.parametrize("how", ["kill", "io_error", "disk_full"])
@pytest.mark.parametrize("where", WHERE)
def test_worker_fails_where_it_hurts(server, tmp_path, count, where, how):
  run = tmp_path / "run"
  trainer = start(server, run, "train", **CONFIG)
  broken = server.start("work", run, fail_at=f"{where}:{how}", name="broken")
  code = broken.wait()
  assert code in ((-signal.SIGKILL,) if how == "kill" else (0, 2))
  let_end({"train": trainer, "w": start(server, run, "w")})
  follow(server, tmp_path / "whole", run, **CONFIG)
  assert toy.figures(run) == toy.figures(tmp_path / "whole")
  again = redone(run)
  assert not again
  count(
    f"worker, {how} at each of {len(WHERE)} fail points",
    1,
    "run equal bit for bit, no chunk twice",
  )


def test_races_of_two_workers(server, tmp_path, count):
  whole = tmp_path / "whole"
  checkpoint_of(server, whole)
  for race in range(50):
    run = tmp_path / f"race{race}"
    shutil.copytree(whole, run)
    pair = [server.start("work", run, name=name) for name in "ab"]
    let_end(dict(zip("ab", pair, strict=True)))
    assert versions.list_versions(run) == [0, 1]
    manifest.verify(versions.version_path(run, 1))
    assert not redone(run)
    shutil.rmtree(run)
  count("races of two workers", 50, "one version each, no chunk twice")


def test_sigterm_at_any_time(server, tmp_path, count):
  rng, slowest = random.Random(1), 0.0
  for i in range(20):
    run = tmp_path / f"run{i}"
    trainer = server.start("train", run, step_seconds=0.02, num_steps=500)
    while not (run / "metrics.jsonl").exists():
      assert trainer.poll() is None, trainer.log()
      time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.5))
    began = time.monotonic()
    trainer.send(signal.SIGTERM)
    assert trainer.wait(30) == 0, trainer.log()
    slowest = max(slowest, time.monotonic() - began)
    newest = max(sealed.numbers(checkpoint.folder(run)))
    assert newest == toy.figures(run)[-1]["step"]
  count("SIGTERMs, 1 process", 20, f"no step lost, exit 0 in {slowest:.1f} s")


def test_flipped_bits_and_truncations(server, tmp_path, count):
  run, rng = tmp_path / "run", random.Random(2)
  checkpoint_of(server, run)
  steps = checkpoint.folder(run)
  checks = {
    steps / "10": lambda: sealed.verify(steps, 10),
    run / "index/0": lambda: manifest.verify(run / "index/0"),
  }
  # what Orbax adds after the seal and no restore reads, and the seal itself
  unread = {
    steps / "10" / name
    for name in ("_CHECKPOINT_METADATA", "commit_success.txt", sealed.SEAL)
  }
  for i in range(1200):
    folder = list(checks)[i % 2]
    verify = checks[folder]
    files = [p for p in folder.rglob("*") if p.is_file()]
    file = rng.choice([p for p in files if p not in unread])
    content = file.read_bytes()
    if i < 1000 and content:
      damaged = bytearray(content)
      damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    else:
      damaged = content[: rng.randrange(len(content))] if content else b"x"
    file.write_bytes(damaged)
    with pytest.raises(InputError, match=r"damaged|not what was saved"):
      verify()
    file.write_bytes(content)
    verify()
  count("flipped bits", 1000, "all seen before use")
  count("truncations", 200, "all seen before use")
