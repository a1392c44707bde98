"""Commands started as a person starts them, on runs and corpora made here.

`demo` is the folder of tiny runs that nobody trained; `own` is a corpus of 60
articles with questions, prepared once, and `start` runs a command on it.
"""

import contextlib
import importlib.util
import io
import json
import os
import pathlib
import runpy
import subprocess
import sys
from typing import NamedTuple

import pytest
from absl import flags

from configs import finetune
from realm_jax.data.blocks import BlockStore
from realm_jax.data.tokenizer import load_tokenizer

ROOT = pathlib.Path(__file__).parent.parent.parent
_PATH = pathlib.Path(__file__).parent.parent / "tiny_runs.py"
_spec = importlib.util.spec_from_file_location("tiny_runs", _PATH)
_tiny_runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tiny_runs)

_FIRST = ("Al", "Ber", "Cor", "Dun", "El", "Fal", "Gor", "Hal", "Ing", "Jor")
_LAST = ("beck", "dale", "field", "ham", "mouth", "wick")
_RIVERS = ("Ouse", "Tyne", "Wear", "Tees", "Swale", "Nidd", "Ure")
_FOUNDERS = ("Anselm", "Bertram", "Cuthbert", "Dunstan", "Edmund")
_TRADES = ("wool", "salt", "glass", "copper", "tin", "silk", "barley", "rope")


class Outcome(NamedTuple):
  """How a command ended."""

  code: int
  out: str
  err: str


class Own(NamedTuple):
  """A corpus, its questions and what prepare_data made of them."""

  folder: pathlib.Path
  data: pathlib.Path
  corpus: pathlib.Path

  def flags(self) -> list[str]:
    """What makes a smoke config fit for it, and small."""
    return [
      f"--config.data.dir={self.data}",
      "--config.mesh.data=1",
      "--config.encoder.num_hidden_layers=1",
    ]


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
  return _tiny_runs.make_demo(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def plain_run(demo, tmp_path_factory):
  """A fine-tuned run that the reference has a model for, as `base` runs are:
  embedder and reader of the same sizes, positions that run on."""
  config = finetune.get_config("smoke")
  config.data.dir = str(demo / "data")
  config.embedder = config.encoder
  config.encoder.init = "normal"
  config.contiguous, config.embed_found = True, False
  config.joint_len = 64  # whole blocks beside any question
  workdir = tmp_path_factory.mktemp("plain") / "run"
  tok = load_tokenizer(demo / "data" / "tokenizer")
  _tiny_runs.make_run(
    workdir, config, tok, BlockStore(demo / "data" / "blocks")
  )
  return workdir


@pytest.fixture(scope="session")
def start():
  """start(NAME, *arguments) -> Outcome, in this process."""
  return _start


@pytest.fixture(scope="session")
def start_failing():
  """start_failing("point:how", NAME, *arguments): a process that fails."""
  return _start_failing


@pytest.fixture(scope="session")
def own(tmp_path_factory):
  folder = tmp_path_factory.mktemp("own")
  articles = list(_articles())
  corpus = write_lines(folder / "corpus.jsonl", articles)
  questions = [_question(a) for a in articles]
  for split, rows in (
    ("train", questions[:40]), ("dev", questions[40:49]),
    ("test", questions[49:]),
  ):  # fmt: skip
    write_lines(folder / f"{split}.jsonl", rows)
  outcome = _start(
    "prepare_data",
    "--config=configs/own.py",
    f"--workdir={folder}",
    f"--config.data.corpus={corpus}",
    "--config.data.tokenizer.vocab_size=400",
    *(
      f"--config.data.qa_{split}={folder / split}.jsonl"
      for split in ("train", "dev", "test")
    ),
  )
  assert (outcome.code, outcome.err) == (0, "")
  assert "60 blocks of 60 articles" in outcome.out
  assert "40/9/11 questions" in outcome.out
  return Own(folder, folder / "data", corpus)


def write_lines(path: pathlib.Path, rows) -> pathlib.Path:
  """Writes rows as JSONL."""
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def _articles():
  for i in range(60):
    town = _FIRST[i % 10] + _LAST[i // 10]
    yield {
      "id": f"a{i}",
      "title": town,
      "text": f"{town} is a town on the {_RIVERS[i % 7]}. It was founded by"
      f" {_FOUNDERS[i % 5]} in {1100 + 7 * i}. Traders from {town} sold"
      f" {_TRADES[i % 8]} in London.",
    }


def _question(article):
  words = article["text"].split(" is a ")[1].split(" Traders")[0]
  return {
    "question": words.rstrip("."),
    "answer": [article["title"]],
    "article_id": article["id"],
  }


def _start(name: str, *arguments: str) -> Outcome:
  """Runs a command in this process; the compiled programs are shared."""
  out, err = io.StringIO(), io.StringIO()
  module = f"experiments/{name}.py"
  argv, sys.argv = sys.argv, [module, *arguments]
  code = 0
  try:
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      runpy.run_module(f"experiments.{name}", run_name="__main__")
  except SystemExit as e:
    code = e.code or 0
  finally:
    sys.argv = argv
    for flag in list(flags.FLAGS):  # the next command has its own
      own = flags.FLAGS.find_module_defining_flag(flag) == module
      if own or flag.split(".")[0] in ("config", "workdir"):
        delattr(flags.FLAGS, flag)
  return Outcome(code, out.getvalue(), err.getvalue())


def _start_failing(where: str, name: str, *arguments: str) -> Outcome:
  process = subprocess.run(
    [sys.executable, "-m", f"experiments.{name}", *arguments],
    cwd=ROOT,
    env=os.environ | {"REALM_FAILPOINT": where},
    capture_output=True,
    text=True,
    check=False,
  )
  return Outcome(process.returncode, process.stdout, process.stderr)
