"""Everything that training reads, made once from the raw text.

Parts are published one after the other, each whole or not at all, so an
interrupted preparation goes on where it was, and a finished one is used as it
is. Training never parses raw text.
"""

import itertools
import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from realm_jax import files, progress
from realm_jax.config import InputError
from realm_jax.data import (
  blocks,
  corpora,
  prepare_qa,
  qa_choice,
  salient_spans,
  sources,
  text_store,
  texts,
  tokenizer,
)
from realm_jax.data.articles import Article

# A vocabulary hardly changes beyond so many articles, and it is made in memory.
_VOCABULARY_ARTICLES = 500_000
_MIN_BLOCK_LEN = 16
_TOKENIZERS = ("wordpiece", "sentencepiece", "vocab")
_SPLITS = text_store.SPLITS


def prepare(
  config: ml_collections.ConfigDict, directory: str | os.PathLike
) -> dict[str, Any]:
  """Makes a data directory, or uses the one that is there.

  Args:
    config: config.data.
    directory: where; it holds manifest.json once all is made.

  Returns:
    The manifest: config, sources (sha256 of each), counts, hashes, seconds.

  Raises:
    InputError: bad input of any kind, or the directory holds data of another
      config.
  """
  directory = pathlib.Path(directory)
  _check(config)
  inputs = {"config": _identity(config), "sources": _source_hashes(config)}
  if (directory / "manifest.json").exists():
    manifest = files.read_json(directory / "manifest.json")
    _check_same(directory, manifest, inputs)
    return manifest
  _start_over_unless_same(directory, inputs)
  started = time.monotonic()
  manifest = inputs | _Preparation(config, directory).make()
  manifest["seconds"] = round(time.monotonic() - started, 2)
  files.write_json(directory / "manifest.json", manifest)
  return manifest


def _check(config: ml_collections.ConfigDict) -> None:
  """InputError for what is wrong in the config itself."""
  for name in ("corpus", "text"):
    if not corpora.split_names(config[name]):
      raise InputError(
        f"config data.{name} is empty: name a source, such as"
        f" --config.data.{name}=FILE.jsonl"
      )
  prepare_qa.check(config)
  names = corpora.split_names(config.corpus)
  needs_leads = config.qa == "leads" or "lead_lines" in corpora.split_names(
    config.text
  )
  if needs_leads and "leads" not in names:
    raise InputError(
      f'config data.corpus="{config.corpus}" lacks the leads that data.text='
      f'"{config.text}" or data.qa="{config.qa}" ask for: add "leads" to it,'
      ' or set data.text="sentences" and data.qa=""'
    )
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
  salient_spans.make_annotator(config.annotator)


def summary(manifest: dict[str, Any]) -> str:
  """One line on what a data directory holds, and what of its input it lacks."""
  counts = manifest["counts"]
  texts = sum(text["num_records"] for text in counts["text"])
  questions = "/".join(str(counts["qa"][split]) for split in _SPLITS)
  dropped = "".join(
    f"; dropped of qa_{split}: {qa_choice.describe(what)}"
    for split, what in counts["qa_dropped"].items()
  )
  return (
    f"{counts['blocks']['num_blocks']} blocks of"
    f" {counts['blocks']['num_articles']} articles, {texts} texts to mask,"
    f" {questions} questions, {manifest['vocab_size']} wordpieces, made in"
    f" {manifest['seconds']} s{dropped}"
  )


class _Preparation:
  """The parts of one data directory, in the order they need each other."""

  def __init__(
    self, config: ml_collections.ConfigDict, directory: pathlib.Path
  ):
    self._config = config
    self._dir = directory
    self._names = corpora.split_names(config.text)
    self._annotate = salient_spans.make_annotator(config.annotator)
    self._questions: list[sources.LeadQuestion] = []
    if "lead_lines" in self._names or config.qa == "leads":
      self._questions = _lead_questions(config)

  def make(self) -> dict[str, Any]:
    self._tokenizer = self._make_tokenizer()
    self._store = self._make_blocks()
    self._held_out = self._make_held_out()
    counts = [self._make_text(i, name) for i, name in enumerate(self._names)]
    return {
      "tokenizer_hash": self._tokenizer.hash,
      "vocab_size": self._tokenizer.vocab_size,
      "corpus_hash": self._store.meta["corpus_hash"],
      "num_texts": len(self._names),
      "counts": {
        "blocks": self._store.meta,
        "held_out_sentences": len(self._held_out),
        "text": counts,
        **prepare_qa.make(
          self._config, self._dir, self._store, self._questions
        ),
      },
    }

  def _make_tokenizer(self) -> tokenizer.Tokenizer:
    path = self._dir / "tokenizer"
    if not path.exists():
      logging.info("making the vocabulary")
      _tokenizer_of(self._config).save(path)
    return tokenizer.load_tokenizer(path)

  def _make_blocks(self) -> blocks.BlockStore:
    path = self._dir / "blocks"
    if not path.exists():
      logging.info("making the blocks")
      blocks.write_block_store(
        path,
        progress.track(_articles(self._config), "article"),
        self._tokenizer,
        self._config.block_len,
        source=self._config.corpus,
      )
    return blocks.BlockStore(path)

  def _make_held_out(self) -> np.ndarray:
    path = self._dir / "held_out_sentences.npy"
    if not path.exists():
      found = texts.held_out_sentences(self._store, self._questions)
      with files.atomic_publish(path) as tmp, open(tmp, "wb") as out:
        np.save(out, found)
    return np.load(path)

  def _make_text(self, number: int, name: str) -> dict[str, Any]:
    path = self._dir / "text" / str(number)
    if not path.exists():
      logging.info("making the texts of %s", name)
      text_store.write_text_store(
        path,
        progress.track(self._records(name), "text"),
        self._tokenizer,
        source=name,
        hold_out="lead_lines" not in self._names,
      )
    return files.read_json(path / "meta.json")

  def _records(self, name: str) -> Iterator[text_store.Record]:
    if name == "sentences":
      return texts.block_sentences(self._store, self._annotate, self._held_out)
    if name == "lead_lines":
      return texts.lead_lines(self._questions, self._store)
    return texts.read_texts(corpora.records(name), self._store, self._annotate)


def _lead_questions(
  config: ml_collections.ConfigDict,
) -> list[sources.LeadQuestion]:
  """The questions whose article is in the corpus."""
  known = {article.id for article in _articles(config)}
  questions = sources.lead_questions(sources.leads(config.source_cache))
  return [q for q in questions if q.article_id in known]


def _tokenizer_of(config: ml_collections.ConfigDict) -> tokenizer.Tokenizer:
  options = config.tokenizer
  if options.kind == "vocab":
    return tokenizer.load_vocab(options.vocab_file, options.lower_case)
  train = getattr(tokenizer, f"train_{options.kind}")
  articles = itertools.islice(_articles(config), _VOCABULARY_ARTICLES)
  articles = progress.track(articles, "article for the vocabulary")
  words = (text for a in articles for text in (a.title, a.text))
  return train(words, options.vocab_size, options.lower_case)


def _identity(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """The config without what does not change the data."""
  values = config.to_dict()
  for name in ("dir", "source_cache"):
    values.pop(name, None)
  return values


def _articles(config: ml_collections.ConfigDict) -> Iterator[Article]:
  """The articles of the corpus, the first max_articles of them."""
  articles = corpora.articles(config.corpus, config.source_cache)
  return itertools.islice(articles, config.max_articles or None)


def _source_hashes(config: ml_collections.ConfigDict) -> dict[str, str]:
  names = corpora.split_names(f"{config.corpus},{config.text}")
  if config.qa == "files":
    names += [config[f"qa_{split}"] for split in _SPLITS]
  if config.tokenizer.kind == "vocab":
    names.append(config.tokenizer.vocab_file)
  return corpora.hashes([name for name in names if name])


def _check_same(
  directory: pathlib.Path, manifest: dict[str, Any], inputs: dict[str, Any]
) -> None:
  for part in ("config", "sources"):
    old, new = _flat(manifest[part]), _flat(inputs[part])
    for key in sorted(old.keys() | new.keys()):
      if old.get(key) != new.get(key):
        name = f"data.{key}" if part == "config" else f"the file {key}"
        raise InputError(
          f"{directory} was prepared with {name} = {old.get(key)!r}, now it is"
          f" {new.get(key)!r}: choose another data.dir, or delete this one"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  flat = {}
  for key, value in values.items():
    if isinstance(value, dict):
      flat |= _flat(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = list(value) if isinstance(value, tuple) else value
  return flat


def _start_over_unless_same(
  directory: pathlib.Path, inputs: dict[str, Any]
) -> None:
  """Parts that an interrupted preparation left are used only if they fit."""
  path = directory / "inputs.json"
  for left_over in directory.rglob(".tmp-*"):  # of one that was killed
    shutil.rmtree(left_over, ignore_errors=True)
    left_over.unlink(missing_ok=True)
  if not path.exists() and directory.exists() and any(directory.iterdir()):
    raise InputError(
      f"{directory} holds files that no preparation made: choose another"
      " data.dir"
    )
  if path.exists() and files.read_json(path) == inputs:
    return
  for part in ("tokenizer", "blocks", "text", "qa"):
    shutil.rmtree(directory / part, ignore_errors=True)
  (directory / "held_out_sentences.npy").unlink(missing_ok=True)
  files.write_json(path, inputs)
