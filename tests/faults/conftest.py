"""One server of processes for all fault tests."""

import pytest

from tests.faults.forks import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
  server = Server(tmp_path_factory.mktemp("logs"))
  yield server
  server.close()
