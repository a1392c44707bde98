"""The launcher itself: what it says, and that nothing outlives a failure."""

import os
import subprocess
import sys
import time

import pytest

from tests import launched

_MINE = "int(os.environ['REALM_PROCESSES'].split(',')[2])"


def test_the_first_failure_ends_all_and_is_told():
  code = f"import os, sys, time\nif {_MINE}: sys.exit('no luck')\n"
  began = time.monotonic()
  code, said = launched.end(
    launched.start("-c", f"{code}time.sleep(60)", grace=0.2)
  )
  assert code == 1
  assert "process 1 ended with 1" in said
  assert "[1] no luck" in said
  assert "killed process 0" in said
  assert time.monotonic() - began < 20


def _fails(*arguments: str, **env: str) -> str:
  done = subprocess.run(
    [sys.executable, *arguments],
    cwd=launched.ROOT,
    env=os.environ | {"PYTHONPATH": str(launched.ROOT)} | env,
    capture_output=True,
    text=True,
    check=False,
    timeout=60,
  )
  assert done.returncode == 2
  return done.stderr


def test_a_command_of_one_process_is_refused():
  index = ("-m", "experiments.index", "--workdir=x", "list")
  said = _fails(*index, REALM_PROCESSES="auto")
  assert said.startswith("error: REALM_PROCESSES=auto: ")
  assert "runs in one process" in said


@pytest.mark.parametrize("where", ["auto", "here,2", "127.0.0.1:1,2,2"])
def test_no_place_in_a_job_is_refused_and_no_other_process_waited_for(where):
  code = """
import atexit, sys, time
from experiments import command
from realm_jax import distributed
atexit.register(time.sleep, 60)
with distributed.ending_at_once(), command.clean_exit():
  distributed.join(sys.argv[1])
"""
  said = _fails("-c", code, where).splitlines()[-1]
  assert said.startswith(f"error: REALM_PROCESSES={where}: wanted auto ")
