"""A command ends in main's work, or in one line and exit code 2."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import pytest
from absl import flags
from ml_collections import config_dict

from experiments import arguments, command
from realm_jax.config import InputError

CONFIG = """
from ml_collections import config_dict
from realm_jax.config import InputError

def get_config(arg="demo"):
  if arg not in ("smoke", "demo"):
    raise InputError(f"config arg {arg!r}: wanted smoke or demo")
  return config_dict.create(
    seed=3,
    lower=True,
    name="",
    weights=(1.0,),
    train=config_dict.create(batch_size=8, learning_rate=1e-4, num_steps=9),
  )
"""
MAIN = """
import errno, os, signal, sys, time
from experiments import arguments, command
from realm_jax.config import InputError

def main(config, workdir):
  if config.name == "mistake":
    raise InputError("two\\n  lines")
  if config.name == "full":
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/file")
  if config.name == "broken":
    raise OSError(errno.EIO, os.strerror(errno.EIO), "some/file")
  if config.name == "bug":
    raise KeyError("a bug")
  if config.name == "wait":
    print("ready", flush=True)
    time.sleep(60)
  if config.name == "malloc":
    print(os.environ["GLIBC_TUNABLES"])
  print(config.train.batch_size, workdir, "jax" in sys.modules)

if __name__ == "__main__":
  command.run(main)
"""


@pytest.fixture
def config_file(tmp_path):
  path = tmp_path / "some_config.py"
  path.write_text(CONFIG)
  return str(path)


@pytest.fixture
def parse(config_file):
  def call(*args, **kwargs):
    args = [a.replace("FILE", config_file) for a in args]
    return arguments.parse(["name", *args], flags.FlagValues(), **kwargs)

  return call


def test_config_overrides_and_workdir(parse):
  config, workdir = parse(
    "--config=FILE:smoke",
    "--workdir=some/dir",
    "--config.train.batch_size=5",
    "--config.train.learning_rate=1",
    "--config.seed",
    "7",
    "--noconfig.lower",
    "--config.weights=(1, 2.5)",
    "--config.name=a=b",
  )
  assert workdir == pathlib.Path("some/dir")
  train = {"batch_size": 5, "learning_rate": 1.0, "num_steps": 9}
  assert config.train.to_dict() == train
  assert (config.seed, config.lower) == (7, False)
  assert (config.weights, config.name) == ((1, 2.5), "a=b")
  with pytest.raises(AttributeError):
    config.unknown = 1


def test_overrides_may_come_first(parse):
  config, _ = parse("--config.seed=4", "--workdir=w", "--config", "FILE")
  assert config.seed == 4


def test_defaults_and_words(parse):
  defaults = config_dict.create(num_evidence=3)
  kwargs = {"defaults": defaults, "words": "question"}
  args = "--workdir=w", "Dutch painter", "--config.num_evidence=5", "17th"
  config, workdir, words = parse(*args, **kwargs)
  assert (config.num_evidence, str(workdir)) == (5, "w")
  assert words == ["Dutch painter", "17th"]
  assert defaults.num_evidence == 3
  with pytest.raises(InputError, match=r"only --config.KEY=VALUE .*num_ev"):
    parse("--config=FILE", "--workdir=w", **kwargs)
  with pytest.raises(InputError, match="nearest: num_evidence"):
    parse("--config.num_evidences=5", "--workdir=w", **kwargs)


@pytest.mark.parametrize(
  "args, message",
  [
    ("--config.nope=1", "--config.nope: no such key; nearest: "),
    ("--config.batch_sise=1", "--config.batch_sise: .*: train.batch_size, "),
    ("--config.train.bach_size=1", "nearest: train.batch_size, "),
    ("--config.train.deep.er=1", "--config.train.deep.er: no such key"),
    ("--config.seed.x=1", "--config.seed.x: no such key; nearest: seed"),
    ("--noconfig.lowr", "--config.lowr: no such key; nearest: lower"),
    ("--config.train={}", "a section: set its keys: train.batch_size"),
    (
      "--config.train.batch_size=abc",
      "--config.train.batch_size=abc: wanted int, such as the default 8",
    ),
    ("--config.seed=1e3", "--config.seed=1e3: wanted int"),
    ("--config.lower=maybe", "--config.lower=maybe: wanted bool"),
    ("--config.weights=a", "--config.weights=.*: wanted tuple.*default"),
    ("--config.seed", "Missing value for flag --config.seed"),
    (
      "--wrokdir=x",
      "--wrokdir: no such flag; there are --config, --config.KEY, --workdir",
    ),
    ("stray", "'stray': this command takes flags only"),
  ],
)
def test_a_wrong_argument_is_named(parse, args, message):
  with pytest.raises(InputError, match=message):
    parse("--config=FILE", "--workdir=w", args)


@pytest.mark.parametrize(
  "args, message",
  [
    ("--workdir=w", "--config is missing"),
    ("--workdir=w --config.seed=1", "--config is missing"),
    ("--config=FILE", "--workdir is missing"),
    ("--workdir=w --config=FILE:nope", "'nope': wanted smoke or demo"),
    (
      "--workdir=w --config=configs/pretrian.py:demo",
      "configs/pretrian.py:demo: no such file; nearest: ",
    ),
  ],
)
def test_a_missing_one_is_named(parse, args, message):
  with pytest.raises(InputError, match=message):
    parse(*args.split())


@pytest.mark.parametrize(
  "content, message",
  [
    ("", "get_config: None is not"),
    ("def get_config(): pass", "too many positional"),
    ("def get_config(arg): return {}", "returned no ConfigDict"),
  ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, content, message):
  path = tmp_path / "broken.py"
  path.write_text(content)
  with pytest.raises(InputError, match=f"--config={path}:x: .*{message}"):
    arguments.load_config(f"{path}:x")


def test_compilation_cache_where_it_is_writable(tmp_path, monkeypatch):
  before = jax.config.jax_compilation_cache_dir
  (tmp_path / "file").touch()
  try:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "theirs")
    monkeypatch.setenv("REALM_JAX_CACHE", str(tmp_path / "file"))
    command.use_compilation_cache()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "theirs"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    command.use_compilation_cache()  # a file is in the way: goes without
    assert jax.config.jax_compilation_cache_dir == before
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    monkeypatch.setenv("REALM_JAX_CACHE", str(tmp_path))
    command.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "xla")
    # for a command that imports JAX later
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "xla")
  finally:
    jax.config.update("jax_compilation_cache_dir", before)


def _start(tmp_path, config_file, *args):
  main = tmp_path / "main.py"
  main.write_text(MAIN)
  root = pathlib.Path(command.__file__).parent.parent
  return subprocess.Popen(
    [sys.executable, main, f"--config={config_file}", "--workdir=w", *args],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {"PYTHONPATH": str(root)},
  )


@pytest.mark.parametrize(
  "args, code, out, err",
  [
    (["--config.train.batch_size=5"], 0, "5 w False\n", ""),
    (["--config.name=mistake"], 2, "", "error: two lines\n"),
    (
      ["--config.name=full"],
      2,
      "",
      "error: some/file: No space left on device: free some and run again\n",
    ),
    (
      ["--config.name=broken"],
      2,
      "",
      "error: some/file: Input/output error: look at the disk and run again\n",
    ),
    (["--config.sed=1"], 2, "", "error: --config.sed: no such key; nearest:"),
  ],
)
def test_exit_code_and_one_line(tmp_path, config_file, args, code, out, err):
  process = _start(tmp_path, config_file, *args)
  stdout, stderr = process.communicate(timeout=60)
  assert (process.returncode, stdout) == (code, out)
  assert stderr.startswith(err)
  assert stderr.count("\n") == (code == 2)


def test_a_bug_keeps_its_traceback(tmp_path, config_file):
  process = _start(tmp_path, config_file, "--config.name=bug")
  _, stderr = process.communicate(timeout=60)
  assert process.returncode == 1
  assert "Traceback" in stderr and "a bug" in stderr


def test_interrupt_is_130(tmp_path, config_file):
  process = _start(tmp_path, config_file, "--config.name=wait")
  assert process.stdout.readline() == "ready\n"
  time.sleep(0.1)
  process.send_signal(signal.SIGINT)
  assert process.wait(timeout=60) == 130
  assert process.stderr.read() == ""
  process.stdout.close()
  process.stderr.close()


def test_a_reader_who_has_enough_ends_it_without_a_word():
  code = """
from experiments import command
with command.clean_exit():
  while True:
    print("word " * 99)
"""
  job = subprocess.Popen(
    [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
  )
  assert job.stdout.readline().startswith(b"word")
  job.stdout.close()
  assert job.stderr.read() == b""
  assert job.wait(60) == 1


def test_another_broken_pipe_is_a_bug():
  with pytest.raises(BrokenPipeError), command.clean_exit():
    raise BrokenPipeError


def test_help_names_the_flags(tmp_path, config_file):
  process = _start(tmp_path, config_file, "--help")
  stdout, _ = process.communicate(timeout=60)
  assert "--workdir=DIR" in stdout and "--config.seed=3" in stdout
  assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
@pytest.mark.parametrize("own", ["", "glibc.malloc.arena_max=1"])
def test_memory_in_huge_pages(own, tmp_path, config_file, monkeypatch):
  monkeypatch.delenv("GLIBC_TUNABLES")
  if own:
    monkeypatch.setenv("GLIBC_TUNABLES", own)
  process = _start(tmp_path, config_file, "--config.name=malloc")
  stdout, stderr = process.communicate(timeout=60)
  assert process.returncode == 0, stderr
  tunables, rest = stdout.splitlines()
  assert rest == "8 w False"
  assert tunables == own if own else "hugetlb=1" in tunables
