"""launch/: the environment is made once, from a Python that works."""

import pathlib
import shutil
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parent.parent.parent / "launch"


@pytest.fixture
def repo(tmp_path):
  """A repository whose Python writes down how it was called."""
  (tmp_path / "pyproject.toml").write_text("a = 1\n")
  shutil.copytree(LAUNCH, tmp_path / "launch")
  _program(tmp_path / ".venv/bin/python", 'echo "$@" >> calls')
  return tmp_path


def _program(path, body):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(f"#!/bin/bash\n{body}\n")
  path.chmod(0o755)


def _bash(code, cwd, **env):
  return subprocess.run(
    ["/bin/bash", "-euo", "pipefail", "-c", f"source {LAUNCH}/venv.sh; {code}"],
    cwd=cwd,
    env={"PATH": "/usr/bin:/bin"} | env,
    capture_output=True,
    text=True,
    check=False,
  )


def test_a_python_that_does_not_work_is_passed_over(tmp_path):
  _program(tmp_path / "a/python3.12", "exit 127")
  _program(tmp_path / "b/python3.11", "exit 1")
  _program(tmp_path / "c/python3.11", "exit 0")
  _program(tmp_path / "c/python3.10", "exit 0")
  path = ":".join(str(tmp_path / x) for x in "abc")
  found = _bash("find_python", tmp_path, PATH=path)
  assert found.stdout == f"{tmp_path}/c/python3.11\n"
  _program(tmp_path / "c/python3.12", "exit 0")
  found = _bash("find_python", tmp_path, PATH=path)
  assert found.stdout == f"{tmp_path}/c/python3.12\n"


def test_no_python_is_one_line_and_exit_code_2(tmp_path):
  (tmp_path / "cmp").symlink_to(shutil.which("cmp"))
  ended = _bash("use_venv ''; echo went on", tmp_path, PATH=str(tmp_path))
  assert (ended.returncode, ended.stdout) == (2, "")
  assert ended.stderr.startswith("error: no python3.12 or python3.11")
  assert ended.stderr.count("\n") == 1


def test_installs_once_and_again_when_pyproject_changes(repo):
  def installs(extra):
    (repo / "calls").write_text("")
    assert _bash(f"use_venv '{extra}'", repo).returncode == 0
    return [x.split()[-1] for x in (repo / "calls").read_text().splitlines()]

  assert installs("[test]") == ["--version", ".[test]"]
  assert installs("[test]") == []
  assert installs("") == []
  (repo / "pyproject.toml").write_text("a = 2\n")
  assert installs("") == ["--version", "."]
  assert installs("[test]") == ["--version", ".[test]"]


def test_a_failed_install_is_tried_again(repo):
  _program(repo / ".venv/bin/python", '[[ "$*" == *--version ]]')
  for _ in range(2):
    ended = _bash("use_venv ''; echo went on", repo)
    assert ended.returncode == 1 and "went on" not in ended.stdout
    assert not list(repo.glob(".venv/installed*"))


@pytest.mark.parametrize(
  "args, wanted",
  [
    ([], "configs/demo.py:demo --workdir=runs/demo"),
    (["/some/where"], "configs/demo.py:demo --workdir=/some/where"),
    (["my run", "--smoke"], "configs/demo.py:smoke --workdir={cwd}/my run"),
    (["--smoke"], "configs/demo.py:smoke --workdir=runs/demo"),
  ],
)
def test_demo_from_any_directory(repo, args, wanted):
  cwd = repo / "else where"
  cwd.mkdir()
  command = [repo / "launch/demo.sh", *args]
  subprocess.run(command, cwd=cwd, check=True, capture_output=True)
  last = (repo / "calls").read_text().splitlines()[-1]
  assert last == "-m experiments.demo --config=" + wanted.format(cwd=cwd)


def test_the_swap_is_started_in_the_same_manner(repo):
  command = [repo / "launch/swap_demo.sh", "--smoke"]
  subprocess.run(command, check=True, capture_output=True)
  last = (repo / "calls").read_text().splitlines()[-1]
  assert last == (
    "-m experiments.swap_demo --config=configs/swap.py:smoke"
    " --workdir=runs/swap"
  )


@pytest.mark.parametrize("script", ["demo.sh", "swap_demo.sh"])
def test_demo_refuses_an_unknown_flag(repo, script):
  command = [repo / f"launch/{script}", "--fast"]
  ended = subprocess.run(command, capture_output=True, text=True, check=False)
  assert ended.returncode == 2
  assert ended.stderr == f"usage: launch/{script} [WORKDIR] [--smoke]\n"


def test_several_processes_prepare_their_data_first(repo):
  command = [repo / "launch/local_multiprocess.sh", "-n", "3"]
  subprocess.run(command, check=True, capture_output=True)
  *_, prepare, train = (repo / "calls").read_text().splitlines()
  config = "--config=configs/pretrain.py:demo --workdir=runs/multiprocess"
  assert prepare == f"-m experiments.prepare_data {config}"
  assert train == (
    "launch/local_multiprocess.py --devices 1 -n 3 -- .venv/bin/python -m"
    f" experiments.pretrain {config}/pretrain"
  )
