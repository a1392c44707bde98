"""Questions to answers with their evidence, from a run's directory alone.

A fine-tuned run reads the best blocks and points at a span. A run that is only
pre-trained has no such reader: its encoder fills in a [MASK], summed over the
blocks. A run of the inverse cloze task only finds blocks.
"""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from realm_jax.config import InputError
from realm_jax.data import features, fill_in
from realm_jax.retrieval import candidates, evidence, weighing
from realm_jax.retrieval.evidence import Answer
from realm_jax.retrieval.weighing import EachFilled, EachRead
from realm_jax.serve.run import open_run
from realm_jax.types import Inputs, PretrainBatch

_SHOWN = 5  # blocks a run without a reader shows


class Predictor:
  """Answers questions with one run.

  Attributes:
    run: serve.run.Run.
    note: what a reader of the answers must know, "" for a fine-tuned run.
  """

  def __init__(
    self, workdir: str | pathlib.Path, batch_size: int = 8, index: str = ""
  ):
    """Opens the run; a demo's folder gives its fine-tuned one.

    Args:
      workdir: of a run, or a folder of runs.
      batch_size: questions answered at a time; a program is compiled for it.
      index: another index version than the newest, see serve.run.open_run.

    Raises:
      InputError: no run, no data, or parts that don't belong together.
    """
    self.run = open_run(workdir, index)
    self._batch_size = batch_size
    if self.run.open_qa is not None:
      self._answer, self.note = self._read, ""
    elif self.run.realm is not None:
      self._answer = self._fill
      self.note = (
        f"{self.run.workdir} has no QA reader yet: the answer is what its"
        " encoder fills in for [MASK]"
      )
    else:
      self._answer = self.find
      self.note = f"{self.run.workdir} has no reader: it only finds blocks"

  def answer(self, questions: Sequence[str]) -> list[Answer]:
    """Answers questions, in their order.

    Raises:
      InputError: an empty question, or a [MASK] that can't be filled in.
    """
    check(questions)
    answers = []
    for first in range(0, len(questions), self._batch_size):
      batch = list(questions[first : first + self._batch_size])
      fillers = [""] * (self._batch_size - len(batch))
      answers += self._answer(batch + fillers)[: len(batch)]
    return answers

  def _read(self, questions: list[str]) -> list[Answer]:
    run = self.run
    reading = self.read(questions).reading
    return evidence.read_answers(reading, run.store, run.tokenizer)

  def _fill(self, questions: list[str]) -> list[Answer]:
    run = self.run
    batch = self.masked(questions)
    filled = self.fill(batch).filling(batch.mlm_mask)
    num_masks = batch.mlm_mask.sum(-1).tolist()
    return evidence.fill_answers(filled, num_masks, run.store, run.tokenizer)

  def read(self, questions: Sequence[str]) -> EachRead:
    """What a reader says of questions, as NumPy arrays; "" fills a batch."""
    run = self.run
    return jax.device_get(
      weighing.read_each(
        run.open_qa,
        run.params,
        run.block_emb,
        run.tokens,
        self.queries(questions),
        beam=min(run.config["reader_beam_size"], len(run.store)),
      )
    )

  def fill(self, batch: PretrainBatch) -> EachFilled:
    """What an encoder fills into `masked` questions, as NumPy arrays."""
    run = self.run
    return jax.device_get(
      weighing.fill_each(
        run.realm, run.params, run.block_emb, run.tokens, jax.device_put(batch)
      )
    )

  def masked(
    self, questions: Sequence[str], num_masks: Sequence[int] | None = None
  ) -> PretrainBatch:
    """Questions as texts with masks to be filled in, as NumPy arrays.

    Args:
      questions: B of them; one without [MASK] is put into the run's template,
        "" is left as it is.
      num_masks: [B] how many masks the template's becomes; None: 1.

    Raises:
      InputError: see fill_in.fill_in_batch.
    """
    config = self.run.config
    counts = num_masks or [1] * len(questions)
    return fill_in.fill_in_batch(
      [self._text(*pair) for pair in zip(questions, counts, strict=True)],
      self.run.tokenizer,
      query_len=config["query_len"],
      max_masks=config["max_masks"],
    )

  def _text(self, question: str, num_masks: int) -> str:
    if not question or fill_in.MASK in question:
      return question
    masks = " ".join([fill_in.MASK] * num_masks)
    template = self.run.config["mask_template"].replace(fill_in.MASK, masks)
    return template.replace("{question}", question)

  def find(self, questions: Sequence[str]) -> list[Answer]:
    """The blocks alone, with no answer; "" fills a batch."""
    run = self.run
    query_emb = run.retrieval.embed_query(run.params, self.queries(questions))
    scores, ids = candidates.search(
      run.block_emb,
      query_emb,
      min(_SHOWN, len(run.store)),
      run.retrieval.num_blocks,
    )
    log_probs = jax.nn.log_softmax(scores * run.retrieval.score_scale)
    return [
      Answer("", float("nan"), evidence.make_evidence(*row, run.store))
      for row in zip(np.asarray(ids), np.asarray(log_probs), strict=True)
    ]

  def queries(self, questions: Sequence[str]) -> Inputs:
    """Questions as the retriever reads them, [B, Q], on the device."""
    run = self.run
    ids = run.tokenizer.encode_batch(questions)
    query_len = run.config["query_len"]
    return jax.device_put(features.query_inputs(ids, query_len, run.tokenizer))


def check(questions: Sequence[str]) -> None:
  """Raises InputError where a question is empty."""
  for number, question in enumerate(questions, 1):
    if not question.strip():
      raise InputError(f"question {number} is empty: write some words")
