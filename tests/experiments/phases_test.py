"""Phases of a long command: each once, some beside the others."""

import pathlib
import sys

import pytest

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
