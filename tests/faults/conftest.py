"""One server of processes for all fault tests, and a table of what they saw."""

import pytest

from tests.faults.forks import Server

_COUNTED = "fault counted"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
  server = Server(tmp_path_factory.mktemp("logs"))
  yield server
  server.close()


@pytest.fixture
def count(record_property):
  """count(what, times, seen): a line of the table at the end.

  Lines of one `what` are added up; `seen` is shown once for each wording.
  """

  def count(what: str, times: int, seen: str) -> None:
    record_property(_COUNTED, [what, times, seen])

  return count


def pytest_terminal_summary(terminalreporter):
  """The table; a test that failed has counted nothing."""
  lines: dict[str, list] = {}
  for report in terminalreporter.getreports("passed"):
    for name, value in report.user_properties:
      if name == _COUNTED and report.when == "call":
        what, times, seen = value
        line = lines.setdefault(what, [0, {}])
        line[0] += times
        line[1][seen] = None
  if not lines:
    return
  terminalreporter.section("faults")
  for what, (times, seen) in sorted(lines.items()):
    terminalreporter.write_line(f"{times:5}  {what}: {'; '.join(seen)}")
  failed = len(terminalreporter.getreports("failed"))
  terminalreporter.write_line(f"{failed:5}  tests that failed")
