"""kill -9 at any time, to trainer and workers; what is left is whole and equal."""

import json
import random
import signal
import time

import pytest

from realm_jax.retrieval import index as versions
from realm_jax.retrieval import journal
from realm_jax.train import checkpoint, sealed, verify
from tests.faults import toy

STEPS_A_KILL = 30
SECONDS = 0.01  # a step takes at least so long: the kills find it at work


def start(server, run, role, **config):
  """The trainer, or the worker of that name."""
  if role == "train":
    return server.start("train", run, step_seconds=SECONDS, **config)
  return server.start("work", run, chunk_seconds=0.01, name=role)


def let_end(processes):
  """All of them end well, in a time that has a bound."""
  for role, process in processes.items():
    assert process.wait() == 0, f"{role}: {process.log()}"


def follow(server, run, other, **config):
  """A run that nobody disturbs, and that swaps as the other did."""
  replay = str(other / "index/swaps.jsonl")
  process = server.start("train", run, replay=replay, **config)
  assert process.wait() == 0, process.log()


def redone(run) -> list:
  """Chunks that were finished more than once."""
  lines = (run / "chunks.jsonl").read_text().splitlines()
  done = [tuple(json.loads(line).values()) for line in lines]
  return sorted({chunk for chunk in done if done.count(chunk) > 1})


@pytest.mark.parametrize(
  "kills", [10, pytest.param(100, marks=pytest.mark.nightly)]
)
def test_random_kills_of_trainer_and_workers(server, tmp_path, count, kills):
  rng = random.Random(kills)
  run, roles = tmp_path / "run", ("train", "a", "b")
  config = {
    "num_steps": kills * STEPS_A_KILL,
    "checkpoint_every": 10,
    "every_steps": 20,
    "max_staleness_steps": 30,
  }
  began = time.monotonic()
  processes = {role: start(server, run, role, **config) for role in roles}
  killed, newest = dict.fromkeys(roles, 0), 0
  for _ in range(kills):
    time.sleep(rng.uniform(0.1, 0.7))
    role = rng.choice(roles)
    processes[role].kill()
    assert processes[role].code == -signal.SIGKILL, processes[role].log()
    killed[role] += 1
    steps = sealed.numbers(checkpoint.folder(run))
    assert max(steps, default=0) >= newest, "a checkpoint was lost"
    newest = max(steps, default=0)
    processes[role] = start(server, run, role, **config)
  let_end(processes)
  for line in verify.verify(run):
    assert "as " in line

  swaps = journal.read_swaps(run)
  assert len(swaps) >= 0.7 * kills
  for key in ("step", "version", "params_step"):
    of_swaps = [swap[key] for swap in swaps]
    assert of_swaps == sorted(set(of_swaps))
  made = [
    versions.read_manifest(run, v)["params_step"]
    for v in versions.list_versions(run)
  ]
  assert made == sorted(set(made)), "a version went backwards, or came twice"
  again = redone(run)
  assert not again
  follow(server, tmp_path / "whole", run, **config)
  assert toy.figures(run) == toy.figures(tmp_path / "whole")
  of_roles = ", ".join(f"{role} {times}" for role, times in killed.items())
  count(
    f"random kills of trainer and workers ({of_roles})",
    kills,
    f"0 checkpoints lost, {len(swaps)} swaps of {len(made)} versions, all"
    f" whole; {len(again)} chunks embedded twice; 0 hangs in"
    f" {time.monotonic() - began:.0f} s; {len(toy.figures(run))} lines of"
    " metrics equal bit for bit",
  )


@pytest.mark.parametrize(
  "where",
  [
    "swap_written:kill",
    *(
      pytest.param(f"{where}:kill", marks=pytest.mark.nightly)
      for where in ("version_load", "swap", "checkpoint_seal")
    ),
  ],
)
def test_trainer_killed_where_it_hurts(server, tmp_path, count, where):
  run = tmp_path / "run"
  config = {"num_steps": 40, "max_staleness_steps": 20, "at_bound": "block"}
  worker = start(server, run, "w")
  killed = server.start("train", run, fail_at=where, **config)
  assert killed.wait() == -signal.SIGKILL, killed.log()
  let_end({"train": server.start("train", run, **config), "worker": worker})
  follow(server, tmp_path / "whole", run, **config)
  assert toy.figures(run) == toy.figures(tmp_path / "whole")
  count(f"trainer, kill at {where.split(':')[0]}", 1, "equal bit for bit")
