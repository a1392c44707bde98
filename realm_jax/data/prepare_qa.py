"""The questions of a data directory: read, chosen, split, written."""

import pathlib
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from realm_jax import progress
from realm_jax.config import InputError
from realm_jax.data import answer_patterns, qa, qa_choice, sources, text_writer
from realm_jax.data.blocks import BlockStore

_SPLITS = text_writer.SPLITS
_KINDS = ("leads", "files", "")


def check(config: ml_collections.ConfigDict) -> None:
  """InputError for what is wrong in config.data about questions."""
  if config.qa not in _KINDS:
    raise InputError(
      f'config data.qa="{config.qa}": wanted "leads", "" or "files" with'
      " data.qa_train, data.qa_dev and data.qa_test"
    )
  for split in _SPLITS:
    if config.qa != "files" and (path := config[f"qa_{split}"]):
      raise InputError(
        f'config data.qa_{split}="{path}" is read only with data.qa="files",'
        f' and it is "{config.qa}": give --config.data.qa=files'
      )
  if config.qa_options.hash_dev and (config.qa_dev or not config.qa_train):
    raise InputError(
      f'config data.qa_options.hash_dev with data.qa_train="{config.qa_train}"'
      f' and data.qa_dev="{config.qa_dev}": it takes dev from train, so wanted'
      " the first and not the second"
    )


def make(
  config: ml_collections.ConfigDict,
  directory: pathlib.Path,
  store: BlockStore,
  leads: list[sources.LeadQuestion],
) -> dict[str, Any]:
  """Writes qa/SPLIT.jsonl of each split that has questions.

  Args:
    config: config.data.
    directory: of the data.
    store: its blocks, where patterns are looked for.
    leads: the questions of data.qa="leads".

  Returns:
    {"qa": {split: questions}, "qa_dropped": {split: {what: how many}}}.
  """
  if config.qa == "leads":
    splits, dropped = {s: _of_leads(leads, s) for s in _SPLITS}, {}
  else:
    splits, dropped = _of_files(config)
  for split, questions in splits.items():
    if questions:
      found = _with_spans(questions, store, config.qa_options)
      qa.write_qa(directory / "qa" / f"{split}.jsonl", found)
  counts = {split: len(questions) for split, questions in splits.items()}
  return {"qa": counts, "qa_dropped": dropped}


def _of_leads(leads, split):
  return [
    qa.Question(q.article_id, q.question, [q.answer], q.article_id)
    for q in leads
    if q.split == split
  ]


def _of_files(config):
  splits, dropped = {}, {}
  for split in _SPLITS:
    path = config[f"qa_{split}"] if config.qa else ""
    splits[split] = []
    if path:
      read = qa.read_qa(path, config.qa_options.regex)
      chosen = qa_choice.choose(read, config.qa_options.max_answer_words)
      splits[split] = chosen.questions
      _report(path, len(read), chosen)
      if chosen.dropped:
        dropped[split] = chosen.dropped
  if config.qa_options.hash_dev:
    train = splits["train"]
    splits["dev"] = [q for q in train if qa_choice.is_dev(q.question)]
    splits["train"] = [q for q in train if not qa_choice.is_dev(q.question)]
  return splits, dropped


def _report(path, num_read, chosen):
  words = qa_choice.describe(chosen.dropped)
  if not chosen.questions:
    raise InputError(
      f"{path}: none of its {num_read} questions is left: {words}"
    )
  if words:
    logging.warning("%s: dropped %s, of %d questions", path, words, num_read)


def _with_spans(questions, store, options):
  """Gives the questions whose answers are patterns what these match."""
  patterns = [q.answers if q.regex else [] for q in questions]
  if not any(patterns):
    return questions
  count = min(options.regex_blocks or len(store), len(store))
  blocks = np.arange(count) * len(store) // count
  blocks = progress.track(blocks.tolist(), "block", count)
  texts = map(store.text, blocks)
  found = answer_patterns.find_spans(patterns, texts, options.regex_spans)
  return [q._replace(spans=s) for q, s in zip(questions, found, strict=True)]
