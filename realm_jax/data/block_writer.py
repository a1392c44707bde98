"""Writes a block store, article by article, or copied from another store."""

import hashlib
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from realm_jax.config import InputError
from realm_jax.data import packing, sentences
from realm_jax.data.articles import Article
from realm_jax.data.ragged import FlatWriter, RaggedWriter
from realm_jax.data.tokenizer import Tokenizer

if TYPE_CHECKING:
  from realm_jax.data.blocks import BlockStore

CHUNK = 256  # articles tokenised at once
_COPIED = 10_000  # articles at a time: their texts are in memory
_quoted = json.encoder.encode_basestring_ascii
# What has rows of different lengths, and its type; None: the wordpieces'.
RAGGED = {
  "tokens": None,
  "sentence_starts": np.int32,
  "sentence_bytes": np.int32,
  "text": np.uint8,
  "article_ids": np.uint8,
  "article_titles": np.uint8,
}


class StoreWriter:
  """Appends articles and their blocks to the files of a store.

  Args:
    directory: is there, and empty.
    tokenizer: of the blocks.
    splitter: of their sentences, see sentences.make_splitter.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    tokenizer: Tokenizer,
    splitter: str = sentences.RULES,
  ):
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
    self._tokenizer, self._directory = tokenizer, directory
    self._splitter = splitter
    self._flat = {
      "title_lens": FlatWriter(directory / "title_lens.npy", np.int32),
      "articles": FlatWriter(directory / "articles.npy", np.int32),
    }
    self._ragged = {
      name: RaggedWriter(directory, name, kind or dtype)
      for name, kind in RAGGED.items()
    }
    self._hash = hashlib.sha256()
    self._counts = dict.fromkeys(
      ("num_articles", "num_blocks", "num_sentences", "num_tokens"), 0
    )

  def pack(
    self, articles: Iterable[Article], block_len: int, whole: bool = False
  ) -> None:
    """Cuts articles into blocks and appends both.

    Args:
      articles: what.
      block_len: wordpieces of a block at the most, title and specials too.
      whole: whether an article is one block, cut where it is too long.
    """
    pack = packing.pack_whole if whole else packing.pack_articles
    split = sentences.make_splitter(self._splitter)
    articles = iter(articles)
    while chunk := list(itertools.islice(articles, CHUNK)):
      packed = pack(chunk, self._tokenizer, block_len, split)
      for article, blocks in zip(chunk, packed, strict=True):
        self.add(article, blocks)

  def add(self, article: Article, blocks: list[packing.Block]) -> None:
    """Appends an article and its blocks."""
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
      # json.dumps([id, title, text]), three times as fast
      fields = map(_quoted, (article.id, article.title, block.text))
      self._digest([f"[{', '.join(fields)}]"])
      self._counts["num_blocks"] += 1
      self._counts["num_sentences"] += len(block.sentence_starts)
      self._counts["num_tokens"] += len(tokens)

  def copy(self, store: "BlockStore", first: int, last: int) -> None:
    """Appends the articles first .. last - 1 of a store with their blocks."""
    begin, end = np.searchsorted(store.articles, [first, last]).tolist()
    moved = self._counts["num_articles"] - first
    self._counts["num_articles"] += last - first
    for name in ("article_ids", "article_titles"):
      self._ragged[name].append_rows(store.ragged[name], first, last)
    for name in ("tokens", "sentence_starts", "sentence_bytes", "text"):
      self._ragged[name].append_rows(store.ragged[name], begin, end)
    self._flat["title_lens"].extend_array(store.title_lens[begin:end])
    self._flat["articles"].extend_array(store.articles[begin:end] + moved)
    names = [
      f"[{_quoted(name)}, {_quoted(title)}, "
      for name, title in zip(
        store.ragged["article_ids"].texts(first, last),
        store.ragged["article_titles"].texts(first, last),
        strict=True,
      )
    ]
    rows = (store.articles[begin:end] - first).tolist()
    texts = store.ragged["text"].texts(begin, end)
    self._digest(
      f"{names[row]}{_quoted(text)}]"
      for row, text in zip(rows, texts, strict=True)
    )
    self._counts["num_blocks"] += end - begin
    for count, name in (
      ("num_sentences", "sentence_starts"),
      ("num_tokens", "tokens"),
    ):
      offsets = store.ragged[name].offsets
      self._counts[count] += int(offsets[end] - offsets[begin])

  def _digest(self, blocks: Iterable[str]) -> None:
    """Blocks more in the corpus hash, each as JSON."""
    self._hash.update("".join(blocks).encode())

  def finish(
    self,
    block_len: int,
    extra_meta: dict[str, Any] | None = None,
    source: str = "",
    may_be_empty: bool = False,
  ) -> None:
    """Writes the rest and meta.json; source names the articles, for messages.

    Raises:
      InputError: there is no block.
    """
    meta = self._close()
    if not meta["num_blocks"] and not may_be_empty:
      raise InputError(
        f"empty corpus: none of the {meta['num_articles']} articles{source}"
        " has a text: give some that have"
      )
    meta |= {"block_len": block_len, **(extra_meta or {})}
    path = self._directory / "meta.json"
    path.write_text(json.dumps(meta, indent=2) + "\n")

  def _close(self) -> dict[str, Any]:
    for writer in (*self._flat.values(), *self._ragged.values()):
      writer.close()
    return {
      "tokenizer_hash": self._tokenizer.hash,
      "corpus_hash": self._hash.hexdigest(),
      "pad_id": self._tokenizer.pad_id,
      "sentence_splitter": self._splitter,
      **self._counts,
    }


def runs(kept: np.ndarray) -> Iterator[tuple[int, int]]:
  """The [first, last) of runs of True, none of them longer than _COPIED."""
  edges = np.flatnonzero(np.diff(np.concatenate([[0], kept, [0]])))
  for begin, end in edges.reshape(-1, 2).tolist():
    for first in range(begin, end, _COPIED):
      yield first, min(first + _COPIED, end)
