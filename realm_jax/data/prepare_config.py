"""Checks at preparation's door: what is wrong in the config itself."""

from typing import Any

import ml_collections

from realm_jax.config import InputError
from realm_jax.data import (
  corpora,
  prepare_qa,
  runners,
  salient_spans,
  sentences,
)

_MIN_BLOCK_LEN = 16
# What came later, with what was done until then.
CAME_LATER = {"sentence_splitter": sentences.RULES}
_TOKENIZERS = ("wordpiece", "sentencepiece", "vocab")
# Fields that do not change the data: where it lies, and who makes it.
_ELSEWHERE = ("dir", "source_cache", "runner", "workers", "beam_args")


def check(config: ml_collections.ConfigDict) -> None:
  """InputError for a value of config.data that cannot be."""
  for name in ("corpus", "text"):
    if not corpora.split_names(config[name]):
      raise InputError(
        f"config data.{name} is empty: name a source, such as"
        f" --config.data.{name}=FILE.jsonl"
      )
  _check_questions(config)
  if config.tokenizer.kind not in _TOKENIZERS:
    raise InputError(
      f'config data.tokenizer.kind="{config.tokenizer.kind}": wanted one of'
      f" {', '.join(_TOKENIZERS)}"
    )
  if config.tokenizer.kind == "vocab" and not config.tokenizer.vocab_file:
    raise InputError(
      "config data.tokenizer.vocab_file is empty: name a BERT vocab.txt, or"
      ' train one with data.tokenizer.kind="wordpiece"'
    )
  if config.block_len < _MIN_BLOCK_LEN or config.max_articles < 0:
    raise InputError(
      f"config data.block_len={config.block_len}, data.max_articles="
      f"{config.max_articles}: wanted at least {_MIN_BLOCK_LEN} and 0"
    )
  if not config.max_articles:  # else its end may not be needed
    corpora.check_ends(config.corpus)
  salient_spans.make_annotator(config.annotator)
  sentences.make_splitter(config.sentence_splitter)
  make_runner(config)


def make_runner(config: ml_collections.ConfigDict) -> runners.Runner:
  """The runner that config.data names."""
  return runners.Runner(config.runner, config.workers, config.beam_args)


def identity(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config without what does not change the data."""
  values = config.to_dict()
  for name in _ELSEWHERE:
    values.pop(name, None)
  return values


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"a": {"b": 1}} as {"a.b": 1}, tuples as lists."""
  found = {}
  for key, value in values.items():
    if isinstance(value, dict):
      found |= flat(value, f"{prefix}{key}.")
    else:
      found[prefix + key] = list(value) if isinstance(value, tuple) else value
  return found


def _check_questions(config: ml_collections.ConfigDict) -> None:
  prepare_qa.check(config)
  needs_leads = config.qa == "leads" or "lead_lines" in corpora.split_names(
    config.text
  )
  if needs_leads and "leads" not in corpora.split_names(config.corpus):
    raise InputError(
      f'config data.corpus="{config.corpus}" lacks the leads that data.text='
      f'"{config.text}" or data.qa="{config.qa}" ask for: add "leads" to it,'
      ' or set data.text="sentences" and data.qa=""'
    )
