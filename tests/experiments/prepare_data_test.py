"""prepare_data as a user starts it, with a config file of its own."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from realm_jax import files

ROOT = pathlib.Path(__file__).parent.parent.parent


def prepare_data(workdir, *changes):
  return subprocess.run(
    [sys.executable, "-m", "experiments.prepare_data"]
    + ["--config=configs/pretrain.py:smoke", f"--workdir={workdir}"]
    + [f"--config.data.{change}" for change in changes],
    cwd=ROOT,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.fixture
def corpus(tmp_path):
  path = tmp_path / "mine.jsonl"
  lines = [
    {"id": str(i), "title": f"Hill {i}", "text": f"It rose in {1900 + i}."}
    for i in range(5)
  ]
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return path


def test_a_users_corpus(corpus, tmp_path):
  changes = (f"corpus={corpus}", "text=sentences", "qa=")
  result = prepare_data(tmp_path / "run", *changes)
  assert (result.returncode, result.stderr) == (0, "")
  assert "5 blocks of 5 articles" in result.stdout
  manifest = files.read_json(tmp_path / "run" / "data" / "manifest.json")
  assert manifest["counts"]["text"][0]["num_records"] == 5


def test_a_bad_line_is_one_line_and_exit_code_2(corpus, tmp_path):
  corpus.write_text('{"id": "1", "title": "Hill"}\n')
  changes = (f"corpus={corpus}", "text=sentences", "qa=")
  result = prepare_data(tmp_path / "run", *changes)
  assert result.returncode == 2
  assert result.stderr.count("\n") == 1
  assert f'{corpus}:1: lacks "text"' in result.stderr
