"""Two real processes of four devices: stopped, killed, resumed."""

import os
import pathlib
import signal
import time

from realm_jax.train import checkpoint, metrics
from tests import launched
from tests.train import toy_run

_TOY = pathlib.Path(__file__).with_name("toy_run.py")
_OPTIONS = {"num_steps": 30, "eval_every": 10, "checkpoint_every": 5}


def _start(workdir, **options):
  words = (f"{k}={v}" for k, v in (_OPTIONS | options).items())
  return launched.start(str(_TOY), str(workdir), *words)


def _wait_past(workdir, step: int) -> None:
  """Returns when metrics.jsonl has a later step than this."""
  until = time.monotonic() + launched.BOUND
  while time.monotonic() < until:
    if (workdir / "metrics.jsonl").exists():
      lines = metrics.read_metrics(workdir)
      if lines and lines[-1]["step"] > step:
        return
    time.sleep(0.02)
  raise AssertionError(f"no step after {step} in time")


def test_whatever_happens_it_is_the_run_of_one_process(tmp_path):
  run, one = tmp_path / "run", tmp_path / "one"
  job = _start(run, pause=0.1)
  _wait_past(run, 2)
  job.send_signal(signal.SIGTERM)
  code, said = launched.end(job)
  assert code == 0, said
  stopped = checkpoint.Checkpoints(run).latest()
  assert f"SIGTERM: stopped after step {stopped};" in said
  assert 2 < stopped < 20
  assert metrics.read_metrics(run)[-1]["step"] >= stopped - 1

  job = _start(run, pause=0.1)
  _wait_past(run, stopped)
  began = time.monotonic()
  os.kill(launched.processes(job)[1], signal.SIGKILL)
  code, said = launched.end(job)
  assert time.monotonic() - began < 20
  assert code == 128 + signal.SIGKILL
  assert f"going on from step {stopped}" in said
  assert "process 1 ended with -9; ending the others" in said

  code, said = launched.end(_start(run))
  assert code == 0, said
  toy_run.run(one, **_OPTIONS)
  launched.assert_same_figures(run, one)
