"""Progress: a bar, lines at times, or nothing, and nothing for a short job."""

import pytest

from realm_jax import progress


@pytest.fixture
def clock(monkeypatch):
  seconds = [0.0]
  monkeypatch.setattr("time.monotonic", lambda: seconds[0])
  monkeypatch.delenv(progress.VARIABLE, raising=False)
  return seconds


def _follow(clock, count, total):
  for _ in progress.track(range(count), "text", total):
    clock[0] += 4


def test_a_line_at_times_and_at_the_end(clock, capsys):
  _follow(clock, 9, 9)
  assert capsys.readouterr().err.splitlines() == [
    "text 4/9  0.25/s  eta 00:20",
    "text 8/9  0.25/s  eta 00:04",
    "text 9/9  0.25/s  eta 00:00",
  ]


def test_no_line_of_a_short_job(clock, capsys):
  _follow(clock, 3, 3)
  assert capsys.readouterr().err == ""


def test_no_eta_where_nobody_knows_the_end(clock, capsys):
  _follow(clock, 5, None)
  assert capsys.readouterr().err == "text 4  0.25/s\n"


def test_a_bar_on_a_terminal(clock, capsys, monkeypatch):
  monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
  _follow(clock, 5, 5)
  assert "5/5" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_where_nobody_wants_it(clock, capsys, monkeypatch, terminal):
  monkeypatch.setenv(progress.VARIABLE, progress.OFF)
  monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
  _follow(clock, 9, 9)
  assert capsys.readouterr().err == ""
