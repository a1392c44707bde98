"""Everything that training reads, made once from the raw text.

Parts are published one after the other, each whole or not at all, so an
interrupted preparation goes on where it was, and a finished one is used as it
is. Training never parses raw text.
"""

import functools
import itertools
import os
import pathlib
import shutil
import time
from typing import Any

import ml_collections
import numpy as np

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data import (
  article_shards,
  block_shards,
  blocks,
  corpora,
  drops,
  prepare_config,
  prepare_qa,
  qa_choice,
  sources,
  text_shards,
  text_writer,
  texts,
  tokenizer,
)

# A vocabulary hardly changes beyond so many articles, and it is made in memory.
_VOCABULARY_ARTICLES = 500_000
_HELD_OUT = "held_out_sentences.npy"
_SPLITS = text_writer.SPLITS


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
  prepare_config.check(config)
  inputs = {
    "config": prepare_config.identity(config),
    "sources": _source_hashes(config),
  }
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
    self._dir = directory.absolute()  # as the processes of a runner know it
    self._shards = self._dir / "shards"  # what a kill does not lose
    self._runner = prepare_config.make_runner(config)
    self._names = corpora.split_names(config.text)

  def make(self) -> dict[str, Any]:
    self._tokenizer = self._make_tokenizer()
    self._store = self._make_blocks()
    self._questions = self._lead_questions()
    self._held_out = self._make_held_out()
    counts = [self._make_text(i, name) for i, name in enumerate(self._names)]
    shutil.rmtree(self._shards, ignore_errors=True)
    dropped = drops.drops(self._store.meta["sources"], counts)
    files.write_json(self._dir / drops.FILE, dropped)
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
        "dropped": dropped,
      },
    }

  @functools.cached_property
  def _articles(self) -> list[pathlib.Path]:
    """Shards of the corpus' articles."""
    config = self._config
    step = article_shards.MakeArticles(config.max_articles)
    parts = corpora.parts(config.corpus, config.source_cache)
    directory = self._shards / "articles"
    shards = self._runner.run(step, step.jobs(parts), directory)
    if not config.max_articles:  # else those behind it are not read
      names = corpora.split_names(config.corpus)
      article_shards.check_sources(names, shards)
    return shards

  def _make_tokenizer(self) -> tokenizer.Tokenizer:
    path = self._dir / "tokenizer"
    if not path.exists():
      self._new_tokenizer().save(path)
    return tokenizer.load_tokenizer(path)

  def _new_tokenizer(self) -> tokenizer.Tokenizer:
    options = self._config.tokenizer
    if options.kind == "vocab":
      return tokenizer.load_vocab(options.vocab_file, options.lower_case)
    articles = article_shards.read_shards(self._articles)
    articles = itertools.islice(articles, _VOCABULARY_ARTICLES)
    words = (text for a in articles for text in (a.title, a.text))
    train = getattr(tokenizer, f"train_{options.kind}")
    return train(words, options.vocab_size, options.lower_case)

  def _make_blocks(self) -> blocks.BlockStore:
    path, form = self._dir / "blocks", self._config
    how = form.block_len, form.sentence_splitter
    if not path.exists():
      step = block_shards.MakeBlocks(self._dir / "tokenizer", *how)
      shards = self._runner.run(step, [self._articles], self._shards / "blocks")
      blocks.merge_block_stores(
        path, shards, self._tokenizer, *how, source=self._config.corpus
      )
      shutil.rmtree(self._shards)
    return blocks.BlockStore(path)

  def _lead_questions(self) -> list[sources.LeadQuestion]:
    """The questions whose article is in the corpus."""
    if "lead_lines" not in self._names and self._config.qa != "leads":
      return []
    leads = sources.leads(self._config.source_cache)
    questions = sources.lead_questions(leads)
    return [q for q in questions if self._store.has_article(q.article_id)]

  def _make_held_out(self) -> np.ndarray:
    path = self._dir / _HELD_OUT
    if not path.exists():
      found = texts.held_out_sentences(self._store, self._questions)
      with files.atomic_publish(path) as tmp, open(tmp, "wb") as out:
        np.save(out, found)
    return np.load(path)

  def _make_text(self, number: int, name: str) -> dict[str, Any]:
    path = self._dir / "text" / str(number)
    hold_out = "lead_lines" not in self._names
    if not path.exists() and name == "lead_lines":
      lines = texts.lead_lines(self._questions, self._store)
      text_writer.write_text_store(
        path, lines, self._tokenizer, source=name, hold_out=hold_out
      )
    elif not path.exists():
      shards = self._text_shards(name, self._shards / f"text-{number}")
      text_writer.merge_text_stores(
        path, shards, self._tokenizer, source=name, hold_out=hold_out
      )
    return files.read_json(path / "meta.json")

  def _text_shards(
    self, name: str, directory: pathlib.Path
  ) -> list[pathlib.Path]:
    made_with = (self._dir / "tokenizer", self._config.annotator)
    if name == "sentences":
      step = text_shards.MaskSentences(
        self._dir / "blocks", self._dir / _HELD_OUT, *made_with
      )
      return self._runner.run(step, [len(self._store)], directory)
    own = self._shards / "own_blocks"
    if not own.exists():
      texts.write_own_blocks(own, self._store)
    splitter = self._config.sentence_splitter
    step = text_shards.MaskTexts(own, *made_with, splitter)
    return self._runner.run(step, [name], directory)


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
  for part, came_later in (
    ("config", prepare_config.CAME_LATER), ("sources", {})
  ):  # fmt: skip
    old = came_later | prepare_config.flat(manifest[part])
    new = prepare_config.flat(inputs[part])
    for key in sorted(old.keys() | new.keys()):
      if old.get(key) != new.get(key):
        name = f"data.{key}" if part == "config" else f"the file {key}"
        raise InputError(
          f"{directory} was prepared with {name} = {old.get(key)!r}, now it is"
          f" {new.get(key)!r}: choose another data.dir, or delete this one"
        )


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
  for part in ("tokenizer", "blocks", "text", "qa", "shards"):
    shutil.rmtree(directory / part, ignore_errors=True)
  (directory / _HELD_OUT).unlink(missing_ok=True)
  files.write_json(path, inputs)
