"""Workers that a run starts: back when they die, gone when it ends."""

import os
import signal
import sys
import time

import jax
import pytest

from realm_jax.config import InputError
from realm_jax.train import supervise

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def started(tmp_path, monkeypatch):
  """Workers that write their pid to a file and run `code`; -> pids(name)."""

  def with_code(code):
    def command(workdir, name):
      del workdir
      log = f"import os; print(os.getpid(), file=open({str(tmp_path)!r} + '/"
      log += f"{name}', 'a')); "
      return [sys.executable, "-S", "-c", log + code]

    monkeypatch.setattr(supervise, "command", command)

  def pids(name, count):
    end = time.monotonic() + 10
    path = tmp_path / name
    while not path.exists() or len(path.read_text().split()) < count:
      assert time.monotonic() < end, "not back in 10 s"
      time.sleep(0.02)
    return [int(pid) for pid in path.read_text().split()]

  with_code(SLEEP)
  pids.with_code = with_code
  return pids


def is_alive(pid):
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  return True


def test_a_killed_worker_is_back_and_ends_with_the_run(
  started, tmp_path, capfd
):
  with pytest.raises(RuntimeError), supervise.workers(tmp_path, 2, 60.0):
    (first,) = started("local-0", 1)
    (other,) = started("local-1", 1)
    os.kill(first, signal.SIGKILL)
    _, second = started("local-0", 2)
    assert is_alive(second) and is_alive(other)
    raise RuntimeError
  assert not any(map(is_alive, (first, second, other)))
  assert "worker local-0 ended with code -9; again in 0.5 s" in (
    capfd.readouterr().err
  )


def test_a_run_that_ends_well_waits_for_the_last_version(started, tmp_path):
  started.with_code("import time; time.sleep(0.3)")
  with supervise.workers(tmp_path, 1, 20.0):
    (pid,) = started("local-0", 1)
  assert not is_alive(pid)


def test_and_no_longer_than_it_may(started, tmp_path, capfd):
  began = time.monotonic()
  with supervise.workers(tmp_path, 1, 0.3):
    (pid,) = started("local-0", 1)
  assert time.monotonic() - began < 10 and not is_alive(pid)
  assert "the last index version is not there" in capfd.readouterr().err


def test_devices_that_cannot_be_shared_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  with (
    pytest.raises(InputError, match="supervise=3: these workers would take"),
    supervise.workers(tmp_path, 3, 1.0),
  ):
    pass


def test_the_command_is_a_worker_of_this_run(tmp_path):
  words = supervise.command(tmp_path, "local-7")
  assert words[1:3] == ["-m", "experiments.refresh_worker"]
  assert words[3:] == [
    f"--workdir={tmp_path}", "--id=local-7", f"--parent={os.getpid()}",
  ]  # fmt: skip
