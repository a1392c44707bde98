"""Blocks: pieces of articles of at most C wordpieces, and their store on disk.

Whole sentences are packed greedily, never across articles and without
overlap, as ORQA's wiki_preprocessor does; unlike there, the order of the
articles fixes the block ids, so the same input gives the same ids.
"""

import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from realm_jax import files, types
from realm_jax.config import InputError
from realm_jax.data.articles import Article
from realm_jax.data.ragged import (
  FlatWriter,
  Ragged,
  RaggedWriter,
  open_array,
  take_rows,
)
from realm_jax.data.sentences import split_sentences
from realm_jax.data.tokenizer import Tokenizer, char_to_byte

_NUM_SPECIALS = 3  # [CLS] title [SEP] body [SEP]
_CHUNK = 256  # articles tokenised at once


class Block(NamedTuple):
  """A packed block; text is its sentences joined with one space.

  sentence_starts are offsets into body_ids, sentence_bytes into the UTF-8 of
  text.
  """

  title_ids: list[int]
  body_ids: list[int]
  sentence_starts: list[int]
  sentence_bytes: list[int]
  text: str


class _Sentence(NamedTuple):
  text: str
  ids: list[int]


def pack_blocks(
  article: Article, tokenizer: Tokenizer, block_len: int
) -> list[Block]:
  """Cuts one article into blocks with 3 + title + body <= block_len.

  A title longer than a third of a block is cut for the wordpieces (its text
  stays whole); a sentence longer than a block is cut between words.
  """
  return next(_pack_articles([article], tokenizer, block_len))


def write_block_store(
  directory: str | os.PathLike,
  articles: Iterable[Article],
  tokenizer: Tokenizer,
  block_len: int,
  extra_meta: dict[str, Any] | None = None,
) -> None:
  """Publishes the block store of a corpus.

  Raises:
    InputError: no article has a text.
  """
  with files.atomic_publish(directory) as tmp:
    tmp.mkdir()
    writer = _StoreWriter(tmp, tokenizer)
    articles = iter(articles)
    while chunk := list(itertools.islice(articles, _CHUNK)):
      packed = _pack_articles(chunk, tokenizer, block_len)
      for article, blocks in zip(chunk, packed, strict=True):
        writer.add(article, blocks)
    meta = writer.close()
    if not meta["num_blocks"]:
      raise InputError(
        f"empty corpus: none of {meta['num_articles']} articles has a text"
      )
    meta |= {"block_len": block_len, **(extra_meta or {})}
    (tmp / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")


class BlockStore:
  """The blocks of a corpus, memory-mapped.

  Attributes:
    meta: tokenizer_hash, corpus_hash, num_blocks, num_articles,
      num_sentences, num_tokens, block_len.
    tokens: title and body wordpieces of each block in one row.
    title_lens: [N] wordpieces of each title.
  """

  def __init__(self, directory: str | os.PathLike):
    directory = pathlib.Path(directory)
    self.meta = files.read_json(directory / "meta.json")
    self.tokens = Ragged(directory, "tokens")
    self.title_lens = open_array(directory / "title_lens.npy")
    self._starts = Ragged(directory, "sentence_starts")
    self._bytes = Ragged(directory, "sentence_bytes")
    self._text = Ragged(directory, "text")
    self._articles = open_array(directory / "articles.npy")
    self._ids = Ragged(directory, "article_ids")
    self._titles = Ragged(directory, "article_titles")
    self._rows: dict[str, int] = {}

  def __len__(self) -> int:
    return len(self.tokens)

  def title_ids(self, block: int) -> np.ndarray:
    return self.tokens[block][: self.title_lens[block]]

  def body_ids(self, block: int) -> np.ndarray:
    return self.tokens[block][self.title_lens[block] :]

  def sentence_starts(self, block: int) -> np.ndarray:
    """Offsets of the sentences into body_ids(block)."""
    return self._starts[block]

  def title(self, block: int) -> str:
    return self._titles.text(self._articles[block])

  def text(self, block: int) -> str:
    """The raw text of the block, its sentences joined with one space."""
    return self._text.text(block)

  def sentences(self, block: int) -> list[str]:
    """The raw sentences of the block."""
    raw, starts = self._text[block], self._bytes[block]
    ends = [*(starts[1:] - 1), len(raw)]
    return [
      raw[a:b].tobytes().decode() for a, b in zip(starts, ends, strict=True)
    ]

  def article_id(self, block: int) -> str:
    return self._ids.text(self._articles[block])

  def block_of_article(self, article_id: str) -> list[int]:
    """Ids of an article's blocks, in order; [] where it has none."""
    if not self._rows:
      self._rows = {self._ids.text(i): i for i in range(len(self._ids))}
    row = self._rows.get(article_id)
    if row is None:
      return []
    first, last = np.searchsorted(self._articles, [row, row + 1])
    return list(range(first, last))

  def sentence_table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(block, start in its body, wordpieces) of every sentence of the store."""
    per_block = self._starts.lens()
    block = np.repeat(np.arange(len(self)), per_block)
    start = np.asarray(self._starts.flat, np.int64)
    body_lens = self.tokens.lens() - self.title_lens
    end = np.append(start[1:], 0)
    last = self._starts.offsets[1:] - 1
    end[last] = body_lens
    return block, start, end - start

  def device_tokens(
    self, block_len: int, num_rows: int | None = None
  ) -> types.BlockTokens:
    """All blocks as one padded array, for the mesh.

    Args:
      block_len: C that the embedder reads; longer blocks are cut.
      num_rows: rows of the result, N by default; those beyond N are padding.

    Returns:
      BlockTokens of NumPy arrays, token_ids [num_rows, C - 3].
    """
    width = block_len - _NUM_SPECIALS
    rows = len(self) if num_rows is None else num_rows
    token_ids = np.zeros((rows, width), self.tokens.flat.dtype)
    lens = np.zeros(rows, np.int32)
    title_lens = np.zeros(rows, np.int32)
    n = len(self)
    token_ids[:n] = take_rows(
      self.tokens.flat,
      self.tokens.offsets[:-1],
      self.tokens.lens(),
      width,
      fill=self.meta["pad_id"],
    )
    token_ids[n:] = self.meta["pad_id"]
    lens[:n] = np.minimum(self.tokens.lens(), width)
    title_lens[:n] = np.minimum(self.title_lens, width)
    return types.BlockTokens(token_ids, title_lens, lens)


def _pack_articles(
  articles: list[Article], tokenizer: Tokenizer, block_len: int
) -> Iterator[list[Block]]:
  texts = [
    [a.text[start:end] for start, end in split_sentences(a.text)]
    for a in articles
  ]
  titles = tokenizer.encode_batch([a.title for a in articles])
  ids = iter(tokenizer.encode_batch([s for text in texts for s in text]))
  for whole_title, sentences in zip(titles, texts, strict=True):
    title_ids = whole_title[: block_len // 3]
    room = block_len - _NUM_SPECIALS - len(title_ids)
    pieces = [
      piece
      for text in sentences
      for piece in _cut(_Sentence(text, next(ids)), tokenizer, room)
    ]
    yield [_block(title_ids, group) for group in _pack(pieces, room)]


def _pack(sentences: list[_Sentence], room: int) -> Iterator[list[_Sentence]]:
  group: list[_Sentence] = []
  used = 0
  for sentence in sentences:
    if group and used + len(sentence.ids) > room:
      yield group
      group, used = [], 0
    group.append(sentence)
    used += len(sentence.ids)
  if group:
    yield group


def _block(title_ids: list[int], sentences: list[_Sentence]) -> Block:
  lens = [len(s.ids) for s in sentences]
  num_bytes = [len(s.text.encode()) + 1 for s in sentences]
  return Block(
    title_ids=title_ids,
    body_ids=[i for s in sentences for i in s.ids],
    sentence_starts=[0, *itertools.accumulate(lens[:-1])],
    sentence_bytes=[0, *itertools.accumulate(num_bytes[:-1])],
    text=" ".join(s.text for s in sentences),
  )


def _cut(
  sentence: _Sentence, tokenizer: Tokenizer, room: int
) -> Iterator[_Sentence]:
  """Yields the sentence, in pieces of at most `room` wordpieces."""
  if not sentence.ids:
    return
  while len(sentence.ids) > room:
    head, tail = _cut_once(sentence.text, tokenizer, room)
    yield _Sentence(head, tokenizer.encode(head)[:room])
    sentence = _Sentence(tail, tokenizer.encode(tail))
  if sentence.ids:
    yield sentence


def _cut_once(text: str, tokenizer: Tokenizer, room: int) -> tuple[str, str]:
  _, offsets = tokenizer.encode_with_offsets(text)
  limit = char_to_byte(text).index(offsets[room][0])
  space = text.rfind(" ", 1, limit)
  at = space if space > 0 else limit
  return text[:at].strip(), text[at:].strip()


class _StoreWriter:
  """Appends articles and their blocks to the files of a store."""

  def __init__(self, directory: pathlib.Path, tokenizer: Tokenizer):
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
    self._tokenizer = tokenizer
    self._flat = {
      "title_lens": FlatWriter(directory / "title_lens.npy", np.int32),
      "articles": FlatWriter(directory / "articles.npy", np.int32),
    }
    self._ragged = {
      name: RaggedWriter(directory, name, kind)
      for name, kind in {
        "tokens": dtype,
        "sentence_starts": np.int32,
        "sentence_bytes": np.int32,
        "text": np.uint8,
        "article_ids": np.uint8,
        "article_titles": np.uint8,
      }.items()
    }
    self._hash = hashlib.sha256()
    self._counts = dict.fromkeys(
      ("num_articles", "num_blocks", "num_sentences", "num_tokens"), 0
    )

  def add(self, article: Article, blocks: list[Block]) -> None:
    row = self._counts["num_articles"]
    self._counts["num_articles"] += 1
    self._ragged["article_ids"].append_text(article.id)
    self._ragged["article_titles"].append_text(article.title)
    for block in blocks:
      tokens = block.title_ids + block.body_ids
      self._flat["title_lens"].extend([len(block.title_ids)])
      self._flat["articles"].extend([row])
      self._ragged["tokens"].append(tokens)
      self._ragged["sentence_starts"].append(block.sentence_starts)
      self._ragged["sentence_bytes"].append(block.sentence_bytes)
      self._ragged["text"].append_text(block.text)
      identity = json.dumps([article.id, article.title, block.text])
      self._hash.update(identity.encode())
      self._counts["num_blocks"] += 1
      self._counts["num_sentences"] += len(block.sentence_starts)
      self._counts["num_tokens"] += len(tokens)

  def close(self) -> dict[str, Any]:
    for writer in (*self._flat.values(), *self._ragged.values()):
      writer.close()
    return {
      "tokenizer_hash": self._tokenizer.hash,
      "corpus_hash": self._hash.hexdigest(),
      "pad_id": self._tokenizer.pad_id,
      **self._counts,
    }
