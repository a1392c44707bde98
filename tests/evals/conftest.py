"""The folder of tiny runs, made once for this part's tests."""

import importlib.util
import pathlib

import pytest

_PATH = pathlib.Path(__file__).parent.parent / "tiny_runs.py"
_spec = importlib.util.spec_from_file_location("tiny_runs", _PATH)
_tiny_runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tiny_runs)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
  return _tiny_runs.make_demo(tmp_path_factory.mktemp("demo"))
