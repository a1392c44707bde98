"""The folder of tiny runs, made once for this part's tests; and a desk that
needs no model, before a folder that nobody trained."""

import importlib.util
import json
import pathlib
import threading

import pytest

from realm_jax.serve.desk import Desk
from realm_jax.serve.explanation import Block, Explanation, Guess, IndexState

_PATH = pathlib.Path(__file__).parent.parent / "tiny_runs.py"
_spec = importlib.util.spec_from_file_location("tiny_runs", _PATH)
_tiny_runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tiny_runs)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
  return _tiny_runs.make_demo(tmp_path_factory.mktemp("demo"))


class Parrot:
  """Answers with the question, from the version that it was opened with."""

  def __init__(self, where, version):
    self.where, self.version = where, version
    self.batches = []
    self.go_on = threading.Event()
    self.go_on.set()

  def explain(self, questions):
    assert self.go_on.wait(20)
    self.batches.append(list(questions))
    if bad := [q for q in questions if "divide by zero" in q]:
      raise ZeroDivisionError(bad[0])
    return [self._one(question) for question in questions]

  def _one(self, question):
    text = f"{question} <img src=x onerror=alert(1)>"
    return Explanation(
      question=question,
      how="read",
      answer=question,
      p=0.25,
      evidence=(
        Block(7, question, text, 0.75, question, 0.25, None, (0, 1), True),
        Block(-1, "", "", 0.25),
      ),
      without=Guess("nothing", 0.125),
      words=(),
      run=self.where.run,
      step=9,
      index=IndexState(self.version, 5, 4, 1.5e9, 11),
    )


class Parrots:
  """A desk of parrots: `opened` are theirs, `newest` the version of any run."""

  def __init__(self):
    self.opened, self.newest, self.notes = [], 1, []
    self.fail = self.gone = None  # raised by who opens, by who looks
    self._desks = []

  def open_one(self, where):
    if self.fail:
      raise self.fail
    self.opened.append(Parrot(where, int(where.index or self.newest)))
    return self.opened[-1]

  def look(self, run):
    if self.gone:
      raise self.gone
    return self.newest

  def desk(self, **options):
    options = {"batch_size": 3, "max_waiting": 5, **options}
    desk = Desk(self.open_one, self.look, note=self.notes.append, **options)
    self._desks.append(desk)
    return desk

  def close(self):
    for parrot in self.opened:
      parrot.go_on.set()
    for desk in self._desks:
      desk.close()


@pytest.fixture
def parrots():
  parrots = Parrots()
  yield parrots
  parrots.close()


@pytest.fixture
def untrained(tmp_path):
  """A folder of two runs as a dashboard sees them, "first" and "second"."""
  for number, name in enumerate(("first", "finetune")):
    run = tmp_path / "runs" / name
    (run / "checkpoints" / str(9 - number)).mkdir(parents=True)
    config = {"train": {"num_steps": 20 + number, "seed": 0}, "name": name}
    config |= {"reader_beam_size": 5} if number else {"mask_rate": 0.1}
    (run / "config.json").write_text(json.dumps(config))
    lines = [
      {
        "step": s,
        "time": 100.0 * number + s,
        "loss": 4.0 - s,
        "null_mass": None,
      }
      for s in range(3)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text(text)
  return tmp_path / "runs"
