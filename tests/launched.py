"""Commands started as a job of two processes, of four devices each."""

import os
import pathlib
import subprocess
import sys

import numpy as np

from realm_jax.train import metrics

ROOT = pathlib.Path(__file__).parent.parent
BOUND = 100  # seconds that no job may take; a busy machine is slow
# Between processes all-reduce sums in another order.
ROUNDING = {"rtol": 2e-5, "atol": 2e-6}


def start(*arguments: str, grace: float = 0.5) -> subprocess.Popen:
  """Starts `python ARGUMENTS` in two processes."""
  launcher = ("launch/local_multiprocess.py", "-n2", "--devices=4")
  python = sys.executable
  return subprocess.Popen(
    [python, *launcher, f"--grace={grace}", "--", python, *arguments],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )


def end(launcher: subprocess.Popen, bound=BOUND) -> tuple[int, str]:
  """The exit code and what was said; a job that hangs is killed."""
  try:
    said = launcher.communicate(timeout=bound)[1]
  except subprocess.TimeoutExpired:
    for pid in processes(launcher):
      os.kill(pid, 9)
    raise
  return launcher.returncode, said


def processes(launcher: subprocess.Popen) -> list[int]:
  """The ids of the job's processes."""
  path = f"/proc/{launcher.pid}/task/{launcher.pid}/children"
  return [int(pid) for pid in pathlib.Path(path).read_text().split()]


def assert_same_figures(run, other) -> None:
  """All metrics of two runs but the timings are equal, up to rounding."""
  lines, others = map(metrics.read_metrics, (run, other))
  assert len(lines) == len(others) > 0
  for line, wanted in zip(lines, others, strict=True):
    assert line.keys() - {*metrics.TIMINGS} == wanted.keys() - {
      *metrics.TIMINGS
    }
    for key in line.keys() - {*metrics.TIMINGS}:
      told = f"{key} of step {line['step']}"
      np.testing.assert_allclose(
        line[key], wanted[key], **ROUNDING, err_msg=told
      )
