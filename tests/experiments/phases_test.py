"""Phases of a long command: each once, some beside the others."""

import hashlib
import os
import pathlib
import signal
import sys
import threading
import time

import pytest

from experiments import phases as phases_module
from experiments.phases import Phase, Phases
from realm_jax import files
from realm_jax.config import InputError


def write(path, text):
  print("writing", text)
  path.write_text(text)


def stop():
  sys.exit(0)  # as a run that was told to by SIGTERM


def test_here_and_beside_and_none_twice(tmp_path, capfd):
  one, two, three = (tmp_path / name for name in "abc")
  phases = Phase("one", write, (one, "1")), Phase("two", write, (two, "2"))
  with Phases(tmp_path) as work:
    work.beside(*phases)
    work.run(Phase("three", write, (three, "3")))
    work.wait()
    assert set(work.seconds()) == {"one", "two", "three"}
    total = work.total()
  assert [p.read_text() for p in (one, two, three)] == ["1", "2", "3"]
  assert "writing 2" not in capfd.readouterr().out
  assert "writing 2" in pathlib.Path(tmp_path / "two.log").read_text()
  assert total["seconds_total"] > 0 and total["peak_memory_gb"] > 0

  for path in (one, two, three):
    path.unlink()
  with Phases(tmp_path) as work:
    work.beside(*phases)
    work.run(Phase("three", write, (three, "3")))
    work.wait()
    assert work.total() == total
  assert not (one.exists() or two.exists() or three.exists())


def fail():
  raise InputError("a mistake")


@pytest.mark.parametrize("work, words", [(fail, "a mistake"), (stop, "")])
def test_a_phase_beside_that_did_not_end_well(work, words, tmp_path):
  with pytest.raises(InputError, match=f"bad.log: .*{words}"):  # noqa: SIM117
    with Phases(tmp_path) as phases:
      phases.beside(Phase("bad", work, ()))
      phases.wait()
  done = {path.name for path in (tmp_path / "phases").iterdir()}
  assert done == {"all.json"}
  assert files.read_json(tmp_path / "phases" / "all.json")["seconds_total"] > 0


def linger(folder, stubborn):
  """Ends when it is told to, or doesn't; writes down when that was."""

  def told(*_):
    (folder / "told").write_text(str(time.monotonic()))
    if not stubborn:
      sys.exit(0)

  signal.signal(signal.SIGTERM, told)
  (folder / "ready").touch()
  end = time.monotonic() + 60
  while time.monotonic() < end:
    time.sleep(0.1)


@pytest.mark.parametrize("stubborn", [False, True])
def test_sigterm_reaches_what_runs_beside_at_once(
  tmp_path, monkeypatch, stubborn
):
  monkeypatch.setattr(phases_module, "_PATIENCE", 3.0 if stubborn else 30.0)
  handler = signal.getsignal(signal.SIGTERM)
  with pytest.raises(SystemExit) as ended:  # noqa: SIM117
    with Phases(tmp_path) as phases:
      phases.beside(Phase("linger", linger, (tmp_path, stubborn)))
      while not (tmp_path / "ready").exists():
        time.sleep(0.02)
      threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
      # no handler of Python runs within, as while XLA compiles
      try:
        hashlib.pbkdf2_hmac("sha256", b"a", b"b", 3_000_000)
        time.sleep(20)
      finally:
        computed = time.monotonic()
  assert ended.value.code == 0
  assert time.monotonic() - computed < 10
  assert float((tmp_path / "told").read_text()) < computed
  assert signal.getsignal(signal.SIGTERM) == handler
  (process,) = phases._told
  assert process.exitcode == (-signal.SIGKILL if stubborn else 0)
