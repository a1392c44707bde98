"""`realm-jax`: every command by its name, and help that helps."""

import os
import subprocess
import sys

import pytest

from experiments import __main__ as realm_jax_command
from experiments import command, usage

COMMANDS = realm_jax_command.docs()


@pytest.fixture
def realm_jax(capsys, monkeypatch):
  """realm_jax(*arguments) -> (exit code, stdout, stderr), in this process."""

  def call(*arguments):
    monkeypatch.setattr(sys, "argv", ["realm-jax", *arguments])
    code = 0
    try:
      realm_jax_command.main()
    except SystemExit as e:
      code = e.code or 0
    return code, *capsys.readouterr()

  return call


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_does_and_needs(name):
  doc = COMMANDS[name]
  assert usage.summary(doc)[-1] == "."
  assert usage.needs(doc)[-1] == ".", "write a paragraph `Needs: ….`"
  assert f"\n  python -m experiments.{name} " in doc


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",)])
def test_the_list_has_all(realm_jax, arguments):
  code, out, err = realm_jax(*arguments)
  assert (code, err) == (0, "")
  lines = out.splitlines()
  assert {line.split()[0] for line in lines if line[:1].strip()} >= set(
    COMMANDS
  )
  assert max(map(len, lines)) <= 80
  assert "needs a run with an index (build_index)" in out


def test_a_wrong_name_is_one_line(realm_jax):
  code, out, err = realm_jax("pretrian", "--workdir=x")
  assert (code, out) == (2, "")
  assert err.startswith("error: pretrian: no such command; nearest: pretrain,")
  assert err.count("\n") == 1


def test_is_python_m(tmp_path):
  """What the command sees, and what it starts, is as without realm-jax."""
  done = subprocess.run(
    [sys.executable, "-m", "experiments", "train_ict", f"--workdir={tmp_path}"],
    env=os.environ | {"PYTHONPATH": os.getcwd()},
    capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 2
  assert done.stderr.startswith("error: --config is missing: give --config=")


def test_names_are_completed(realm_jax):
  _, script, _ = realm_jax("completion")
  asked = 'COMP_CWORD=1; _realm_jax realm-jax tr; echo "${COMPREPLY[*]}"'
  done = subprocess.run(
    ["bash", "-c", f"{script}\n{asked}; complete -p realm-jax"],
    capture_output=True, text=True, check=True,
  )  # fmt: skip
  names, registered = done.stdout.splitlines()
  assert names == "train_ict"
  assert registered.endswith("-F _realm_jax realm-jax")


def test_help_has_the_commands_own_flags_alone(start):
  outcome = start("plan", "--help")
  assert outcome.code == 0
  head, flags = outcome.out.split("Flags:\n")
  assert head.startswith("What a run takes and costs")
  names = [w.partition("=")[0] for w in flags.split() if w.startswith("--")]
  assert {"--workdir", "--config", "--blocks", "--peak_flops"} <= set(names)
  assert "--noprogress" in names and "--verbosity" not in names
  assert max(map(len, flags.splitlines())) <= 80


def test_help_explains_the_fields(start):
  words = " ".join(start("ask", "--help").out.split())
  assert "--config.evidence=5 blocks shown" in words
  said = words.partition("--config.index= ")[2]
  assert said.startswith("another index version than the newest, with its")


def test_help_with_a_config_lists_it(start):
  out = start("train_ict", "--config=configs/ict.py:smoke", "-h").out
  assert "  --config.train.batch_size=" in out
  assert start("train_ict", "--config=configs/x.py", "-h").code == 2


def test_noprogress_is_for_all_that_is_started(start, monkeypatch, tmp_path):
  monkeypatch.setenv(command.progress.VARIABLE, "")
  start("verify", f"--workdir={tmp_path}", "--noprogress")
  assert os.environ[command.progress.VARIABLE] == command.progress.OFF
