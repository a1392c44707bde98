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
from realm_jax.retrieval import candidates, evidence
from realm_jax.retrieval.evidence import Answer
from realm_jax.serve.run import open_run

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
      self._answer = self._search
      self.note = f"{self.run.workdir} has no reader: it only finds blocks"

  def answer(self, questions: Sequence[str]) -> list[Answer]:
    """Answers questions, in their order.

    Raises:
      InputError: an empty question, or a [MASK] that can't be filled in.
    """
    for number, question in enumerate(questions, 1):
      if not question.strip():
        raise InputError(f"question {number} is empty: write some words")
    answers = []
    for first in range(0, len(questions), self._batch_size):
      batch = list(questions[first : first + self._batch_size])
      fillers = [""] * (self._batch_size - len(batch))
      answers += self._answer(batch + fillers)[: len(batch)]
    return answers

  def _read(self, questions: list[str]) -> list[Answer]:
    run = self.run
    found = evidence.read(
      run.open_qa,
      run.params,
      run.block_emb,
      run.tokens,
      self._queries(questions),
      beam=min(run.config["reader_beam_size"], len(run.store)),
    )
    return evidence.read_answers(found, run.store, run.tokenizer)

  def _fill(self, questions: list[str]) -> list[Answer]:
    run = self.run
    texts = [self._masked(question) for question in questions]
    batch = fill_in.fill_in_batch(
      texts,
      run.tokenizer,
      query_len=run.config["query_len"],
      max_masks=run.config["max_masks"],
    )
    filled = evidence.fill(
      run.realm, run.params, run.block_emb, run.tokens, jax.device_put(batch)
    )
    num_masks = batch.mlm_mask.sum(-1).tolist()
    return evidence.fill_answers(filled, num_masks, run.store, run.tokenizer)

  def _masked(self, question: str) -> str:
    """The question as a text with a [MASK]; "" stays."""
    if not question or fill_in.MASK in question:
      return question
    template = self.run.config["mask_template"]
    return template.replace("{question}", question)

  def _search(self, questions: list[str]) -> list[Answer]:
    run = self.run
    query_emb = run.retrieval.embed_query(run.params, self._queries(questions))
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

  def _queries(self, questions: list[str]):
    run = self.run
    ids = run.tokenizer.encode_batch(questions)
    query_len = run.config["query_len"]
    return jax.device_put(features.query_inputs(ids, query_len, run.tokenizer))
