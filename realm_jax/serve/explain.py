"""Questions to explanations: the answer and everything that speaks for it."""

import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from realm_jax.config import InputError
from realm_jax.data import fill_in
from realm_jax.retrieval import evidence, manifest, weighing
from realm_jax.serve import predictor
from realm_jax.serve.blocks import blocks_filled, blocks_read, words_filled
from realm_jax.serve.explanation import (
  Block,
  Explanation,
  Guess,
  IndexState,
)
from realm_jax.serve.predictor import Predictor
from realm_jax.serve.run import Run

_WARM = "a question that has every program compiled"


def explain(
  question: str, run: "str | os.PathLike | Explainer", index: str = ""
) -> Explanation:
  """Answers a question and says why.

  Args:
    question: a question, or a sentence with a [MASK] to be filled in.
    run: a run's directory, or a demo's, which is opened for this; or an
      Explainer, which stays open for many questions.
    index: another index version than the newest: its number, its directory, or
      another run's; of a directory only.

  Returns:
    Explanation; its repr fits a screen, `to_json()` is what `/api/ask` sends.

  Raises:
    InputError: no run, parts that don't belong together, or a question that
      can't be answered.
  """
  if not isinstance(run, Explainer):
    run = Explainer(run, batch_size=1, index=index)
  elif index:
    raise InputError(f"index={index!r}: the Explainer is open already: give ''")
  return run.explain([question])[0]


class Explainer:
  """Explains with one run and one index version, which stay what they are.

  Attributes:
    predictor: the run.
    name: of the run.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    batch_size: int = 8,
    index: str = "",
    name: str = "",
  ):
    """Opens the run, and the encoder that its reader began from.

    Args:
      workdir: of a run, or a folder of runs.
      batch_size: most questions at a time.
      index: another version than the newest, see serve.run.open_run.
      name: of the run; "": that of its directory.

    Raises:
      InputError: as Predictor.
    """
    self.predictor = Predictor(workdir, batch_size, index)
    opened = self.predictor.run
    self.name = name or opened.workdir.resolve().name
    self._batch_size = batch_size
    self._memory = None if opened.open_qa is None else _memory(opened)
    self._index = _index_state(opened)

  def warm_up(self) -> None:
    """Compiles for one question and for a whole batch of them."""
    for count in {1, self._batch_size}:
      self.explain([_WARM] * count)

  def explain(self, questions: Sequence[str]) -> list[Explanation]:
    """Explains questions, in their order.

    Raises:
      InputError: as Predictor.answer.
    """
    predictor.check(questions)
    explained = []
    for first in range(0, len(questions), self._batch_size):
      batch = list(questions[first : first + self._batch_size])
      size = 1 if len(batch) == 1 else self._batch_size
      fillers = [""] * (size - len(batch))
      explained += self._explain(batch + fillers)[: len(batch)]
    return explained

  def _explain(self, questions: list[str]) -> list[Explanation]:
    run = self.predictor.run
    if run.open_qa is not None:
      return self._read(questions)
    return (
      self._fill(questions) if run.realm is not None else self._find(questions)
    )

  def _read(self, questions: list[str]) -> list[Explanation]:
    run = self.predictor.run
    read = self.predictor.read(questions)
    rows = [
      jax.tree.map(lambda x, b=b: x[b], read) for b in range(len(questions))
    ]
    blocks = [blocks_read(row, run.store, run.tokenizer) for row in rows]
    answers = [
      next((block.answer for block in shown if block.chosen), "")
      for shown in blocks
    ]
    guesses = self._recall(questions, answers)
    return [
      self._explanation(
        question,
        "read",
        answer=answer,
        p=float(np.exp(row.reading.score)),
        evidence=shown,
        without=guess,
      )
      for question, row, shown, answer, guess in zip(
        questions, rows, blocks, answers, guesses, strict=True
      )
    ]

  def _recall(
    self, questions: list[str], answers: list[str]
  ) -> list[Guess | None]:
    """What the encoder fills in from memory, as many wordpieces as the answer
    has: generous, as experiments.evaluate is."""
    memory = self._memory
    if memory is None:
      return [None] * len(questions)
    run = memory.run
    most = run.config["max_masks"]
    counts = [
      min(max(len(ids), 1), most) for ids in run.tokenizer.encode_batch(answers)
    ]
    texts = [q.replace(fill_in.MASK, " ") for q in questions]
    batch = memory.masked(texts, counts)
    filled = evidence.fill(
      run.realm, run.params, None, run.tokens, jax.device_put(batch)
    )
    masks = batch.mlm_mask.sum(-1).tolist()
    said = evidence.fill_answers(filled, masks, run.store, run.tokenizer)
    return [Guess(a.text, float(np.exp(a.score))) for a in said]

  def _fill(self, questions: list[str]) -> list[Explanation]:
    batch = self.predictor.masked(questions)
    filled = self.predictor.fill(batch)
    return [
      self._filled(
        question, int(masks), jax.tree.map(lambda x, b=b: x[b], filled)
      )
      for b, (question, masks) in enumerate(
        zip(questions, batch.mlm_mask.sum(-1), strict=True)
      )
    ]

  def _filled(
    self, question: str, masks: int, row: weighing.EachFilled
  ) -> Explanation:
    run = self.predictor.run
    tokenizer = run.tokenizer
    answer = tokenizer.decode(row.word_ids[:masks, 0])
    null = tokenizer.decode(row.block_word_ids[0, :masks])
    return self._explanation(
      question,
      "filled in",
      answer=answer,
      p=float(np.exp(row.word_log_probs[:masks, 0].sum())),
      evidence=blocks_filled(row, masks, answer, run.store, tokenizer),
      without=Guess(null, float(np.exp(row.block_score[0]))),
      words=words_filled(row, masks, tokenizer),
    )

  def _find(self, questions: list[str]) -> list[Explanation]:
    answers = self.predictor.find(questions)
    return [
      self._explanation(
        question,
        "found",
        evidence=[
          Block(block.block_id, block.title, block.text, block.p)
          for block in answer.evidence
        ],
      )
      for question, answer in zip(questions, answers, strict=True)
    ]

  def _explanation(
    self, question, how, *, evidence, answer="", p=None, without=None, words=()
  ) -> Explanation:
    return Explanation(
      question=question,
      how=how,
      answer=answer,
      p=p,
      evidence=tuple(sorted(evidence, key=lambda block: -block.p)),
      without=without,
      words=words,
      run=self.name,
      step=self.predictor.run.step,
      index=self._index,
      note=self._note(question, how),
    )

  def _note(self, question: str, how: str) -> str:
    if how == "filled in" and fill_in.MASK not in question:
      template = self.predictor.run.config["mask_template"]
      return f"{self.name} has no reader: it was asked “{template}”"
    return ""


def _memory(opened: Run) -> Predictor | None:
  """The pre-trained run that a reader began from, where it is still there."""
  began = pathlib.Path(opened.config["init"]["encoder"] or ".")
  for path in (began, opened.workdir.parent / began.name):
    if (path / "checkpoints").is_dir() and path != opened.workdir:
      memory = Predictor(path)
      same = memory.run.tokenizer.hash == opened.tokenizer.hash
      return memory if same and memory.run.realm is not None else None
  return None


def _index_state(opened: Run) -> IndexState:
  num_blocks = len(opened.store)
  if opened.index_path is None:
    return IndexState(None, opened.step, 0, None, num_blocks)
  step = manifest.read(opened.index_path)["params_step"]
  made = (opened.index_path / manifest.FILE).stat().st_mtime
  return IndexState(
    opened.index_version, step, max(opened.step - step, 0), made, num_blocks
  )
