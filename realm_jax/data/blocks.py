"""The block store: a corpus cut into blocks, on disk and memory-mapped.

Blocks keep the order of their articles, so the same input gives the same ids;
the hash of the corpus names titles, texts and where the cuts are.
"""

import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from realm_jax import files, types
from realm_jax.config import InputError
from realm_jax.data import packing
from realm_jax.data.articles import Article
from realm_jax.data.ragged import (
  FlatWriter,
  Ragged,
  RaggedWriter,
  open_array,
  take_rows,
)
from realm_jax.data.tokenizer import Tokenizer

_CHUNK = 256  # articles tokenised at once


def write_block_store(
  directory: str | os.PathLike,
  articles: Iterable[Article],
  tokenizer: Tokenizer,
  block_len: int,
  extra_meta: dict[str, Any] | None = None,
  source: str = "",
) -> None:
  """Publishes the block store of a corpus; source names it, for messages.

  Raises:
    InputError: no article has a text.
  """
  with files.atomic_publish(directory) as tmp:
    tmp.mkdir()
    writer = _StoreWriter(tmp, tokenizer)
    articles = iter(articles)
    while chunk := list(itertools.islice(articles, _CHUNK)):
      packed = packing.pack_articles(chunk, tokenizer, block_len)
      for article, blocks in zip(chunk, packed, strict=True):
        writer.add(article, blocks)
    meta = writer.close()
    if not meta["num_blocks"]:
      raise InputError(
        f"empty corpus: none of the {meta['num_articles']} articles of"
        f' data.corpus="{source}" has a text: give some that have'
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
    n = len(self)
    more = (0, (n if num_rows is None else num_rows) - n)
    tokens = self.take(np.arange(n), block_len)
    pad_id = self.meta["pad_id"]
    return types.BlockTokens(
      np.pad(tokens.token_ids, (more, (0, 0)), constant_values=pad_id),
      np.pad(tokens.title_lens, more),
      np.pad(tokens.lens, more),
    )

  def take(self, ids: np.ndarray, block_len: int) -> types.BlockTokens:
    """The tokens of the blocks `ids` [n], as device_tokens has them."""
    width = block_len - packing.NUM_SPECIALS
    starts = self.tokens.offsets[ids]
    lens = self.tokens.offsets[ids + 1] - starts
    flat, pad_id = self.tokens.flat, self.meta["pad_id"]
    token_ids = take_rows(flat, starts, lens, width, fill=pad_id)
    return types.BlockTokens(
      token_ids=token_ids.astype(flat.dtype),
      title_lens=np.minimum(self.title_lens[ids], width).astype(np.int32),
      lens=np.minimum(lens, width).astype(np.int32),
    )


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

  def add(self, article: Article, blocks: list[packing.Block]) -> None:
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
