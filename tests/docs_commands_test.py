"""What README and docs tell a user to type is what the commands take.

Every command of every block is parsed by the command itself, with its own
flags and config. A block marked `<!-- test: run -->` is run here, at smoke size
and in its order with the others of its page; `<!-- test: nightly -->` with
`pytest -m nightly`.
"""

import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
from typing import NamedTuple

import pytest
import yaml
from absl import flags

from experiments import __main__ as realm_jax_command
from experiments import arguments as command_line
from experiments import command, convert, reproduce
from realm_jax.config import InputError

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
  ROOT / "README.md",
  ROOT / "launch" / "README.md",
  *sorted((ROOT / "docs").glob("*.md")),
]
_BLOCK = re.compile(
  r"^(?:<!-- test: (?P<mark>\w+) -->\n)?```\n(?P<text>.*?)^```$",
  re.MULTILINE | re.DOTALL,
)
_COMMAND = re.compile(r"(?:python -m experiments\.|\brealm-jax )(\w+)(.*)")


class Block(NamedTuple):
  """What stands between two fences, and how it is tested."""

  mark: str
  text: str


def blocks(page):
  """The blocks of a page that name no language."""
  found = _BLOCK.finditer(page.read_text())
  return [Block(match["mark"] or "", match["text"]) for match in found]


def commands(text):
  """(name, arguments) of each command of ours; "..." stands for some more."""
  for line in text.replace("\\\n", " ").splitlines():
    match = _COMMAND.search(line)
    if match and "..." not in line.replace('"..."', ""):
      yield match[1], shlex.split(match[2], comments=True)


def parse(name, arguments):
  """Has a command parse its arguments and do nothing.

  Raises:
    InputError: as the command would.
  """
  if name not in realm_jax_command.docs():
    raise InputError(f"{name}: no such command")
  if name == "convert":
    convert.parse([name, *arguments])
    return
  if name == "reproduce":
    _, *arguments = reproduce.in_full([name, *arguments])
  taken, module = {}, f"experiments/{name}.py"
  was, command.run = command.run, lambda main, **options: taken.update(options)
  argv, sys.argv = sys.argv, [module]
  taken_by_parse = ("defaults", "words", "default_workdir")
  try:
    runpy.run_module(f"experiments.{name}", run_name="__main__")
    options = {k: v for k, v in taken.items() if k in taken_by_parse}
    command_line.parse([name, *arguments], flags.FLAGS, **options)
  finally:
    command.run, sys.argv = was, argv
    for flag in list(flags.FLAGS):  # the next command has its own
      own = flags.FLAGS.find_module_defining_flag(flag) == module
      if own or flag.partition(".")[0] in ("config", "workdir"):
        delattr(flags.FLAGS, flag)


ALL = [
  pytest.param(name, arguments, id=f"{page.parent.name}/{page.stem}-{name}")
  for page in PAGES
  for block in blocks(page)
  for name, arguments in commands(block.text)
]


@pytest.mark.parametrize(("name", "arguments"), ALL)
def test_a_command_takes_what_is_told(name, arguments):
  parse(name, arguments)


def test_a_wrong_one_is_seen():
  assert len(ALL) > 40
  text = "x=1 python -m experiments.pretrain --workdir=a \\\n  --config=b # c"
  assert list(commands(text)) == [("pretrain", ["--workdir=a", "--config=b"])]
  wrong = [
    ("pretrian", ["--workdir=a"]),
    ("index", ["--workdir=a", "--config.kep=1", "list"]),
    ("build_index", ["--workdir=a", "--shart=0/2"]),
    ("pretrain", ["--config=configs/pretrain.py:huge", "--workdir=a"]),
    ("convert", ["--from=a"]),
  ]
  for name, arguments in wrong:
    with pytest.raises(InputError):
      parse(name, arguments)


@pytest.fixture
def type_in(tmp_path):
  """type_in(text): runs a block in a folder of its own, at smoke size."""
  programs = tmp_path / "bin"
  programs.mkdir()
  for name, start in (("python", ""), ("realm-jax", "-m experiments ")):
    script = programs / name
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {start}"$@"\n')
    script.chmod(0o755)

  def call(text):
    done = subprocess.run(
      ["bash", "-euo", "pipefail", "-c", text.replace(":demo", ":smoke")],
      cwd=tmp_path,
      env=os.environ
      | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
      },
      capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

  return call


def _marked(name, *marks):
  return [b.text for b in blocks(ROOT / "docs" / name) if b.mark in marks]


def test_the_tutorial_begins(type_in):
  (prepare,) = _marked("tutorial.md", "run")
  assert "blocks of 400 articles, " in type_in(prepare)


@pytest.mark.nightly  # three minutes
def test_the_whole_tutorial(type_in, tmp_path):
  said = [type_in(b) for b in _marked("tutorial.md", "run", "nightly")]
  assert sum("p(z|x)" in text for text in said) == 3  # three times asked
  assert "BM25" in said[-1] or "bm25" in said[-1]
  assert (tmp_path / "runs" / "tutorial" / "report.html").exists()


@pytest.mark.nightly  # three minutes
def test_the_readme_on_a_corpus_of_ones_own(type_in, own_files):
  """All of "Your own corpus", with a few steps in the place of minutes."""
  text = (
    (ROOT / "README.md").read_text().replace("--config.train.num_steps=20", "")
  )
  section = text.split("\n## Your own corpus\n")[1].split("\n## ")[0]
  steps = re.compile(r"(experiments\.(?:train_ict|pretrain|finetune_qa)) ")
  few = r"\1 --config.train.num_steps=4 --config.train.warmup_steps=2 "
  said = [
    type_in(steps.sub(few, block))
    for block in re.findall(r"^```\n(python.*?)^```$", section, re.M | re.S)
  ]
  assert "bm25" in said[-1]


@pytest.fixture
def own_files(tmp_path):
  """my.jsonl and the files of questions, where the README has them."""
  import json

  towns = [f"{a}{b}" for a in "Al Ber Cor Dun El Fal".split()
           for b in "beck dale field ham mouth wick".split()]  # fmt: skip
  rivers = "Ouse Tyne Wear Tees Swale".split()
  articles, questions = [], []
  for i, town in enumerate(towns):
    about = f"on the {rivers[i % 5]}, founded in {1100 + 7 * i}"
    text = f"{town} is a town {about}. Traders from {town} sold salt in London."
    articles.append({"id": town, "title": town, "text": text})
    questions.append({"question": f"town {about}", "answer": [town]})
  for name, rows in (("my", articles), ("train", questions[:28]),
                     ("dev", questions[28:])):  # fmt: skip
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / f"{name}.jsonl").write_text(lines)


def test_the_hooks_need_no_network():
  hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
  (local,) = hooks["repos"]
  assert local["repo"] == "local"
  for hook in local["hooks"]:
    assert hook["language"] == "system"


def test_the_pages_build_without_a_warning(tmp_path):
  pytest.importorskip("sphinx")
  done = subprocess.run(
    [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html",
     "-d", tmp_path / "trees", ROOT / "docs", tmp_path / "html"],
    cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert (done.returncode, done.stderr) == (0, "")
  page = (tmp_path / "html" / "commands.html").read_text()
  assert "Trains an embedder by the inverse cloze task" in page
  page = (tmp_path / "html" / "refresh.html").read_text()
  assert page.count("<svg") >= 3
  assert "def realm_loss(" in re.sub(
    "<[^>]+>", "", (tmp_path / "html" / "maths.html").read_text()
  )
