"""The block store: a corpus cut into blocks, on disk and memory-mapped.

Blocks keep the order of their articles, so the same input gives the same ids;
the hash of the corpus names titles, texts and where the cuts are.
"""

import collections
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from realm_jax import files
from realm_jax.data import packing, pages, sentences
from realm_jax.data.articles import Article
from realm_jax.data.block_writer import RAGGED, StoreWriter, runs
from realm_jax.data.ragged import Ragged, open_array, take_rows
from realm_jax.data.tokenizer import Tokenizer

if TYPE_CHECKING:  # types bring JAX, which preparation does without
  from realm_jax import types


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
    writer = StoreWriter(tmp, tokenizer)
    writer.pack(articles, block_len)
    writer.finish(block_len, extra_meta, f' of data.corpus="{source}"')


def merge_block_stores(
  directory: str | os.PathLike,
  shards: Sequence[pathlib.Path],
  tokenizer: Tokenizer,
  block_len: int,
  splitter: str = sentences.RULES,
  source: str = "",
) -> None:
  """Publishes the store of MakeBlocks' shards, one after the other.

  Of articles with one id the first stays. meta.json has under "sources" what
  became of each source's pages.

  Raises:
    InputError: there is no block.
  """
  sources: dict[str, collections.Counter[str]] = {}
  with files.atomic_publish(directory) as tmp:
    tmp.mkdir()
    writer = StoreWriter(tmp, tokenizer, splitter)
    for shard, kept in zip(shards, _first_of_each_id(shards), strict=True):
      store = BlockStore(shard)
      for first, last in runs(kept):
        writer.copy(store, first, last)
      counts = collections.Counter(store.meta["counts"])
      repeated = int(np.sum(~kept))
      counts.subtract({pages.ARTICLES: repeated, pages.SAME_ID: -repeated})
      without = len(kept) - len(np.unique(store.articles))
      counts[pages.NO_WORDPIECE] += without
      name = store.meta["source"]
      sources[name] = sources.get(name, collections.Counter()) + counts
    said = f' of data.corpus="{source}"'
    writer.finish(block_len, {"sources": sources}, said)


def _first_of_each_id(shards: Sequence[pathlib.Path]) -> list[np.ndarray]:
  """For each article of each shard: whether no earlier one has its id."""
  ids = [Ragged(shard, "article_ids") for shard in shards]
  sizes = [len(x) for x in ids]
  keys = (  # 64 bits: of 6 million, two agree by chance once in a million times
    hashlib.blake2b(text.encode(), digest_size=8).digest()
    for x, size in zip(ids, sizes, strict=True)
    for text in x.texts(0, size)
  )
  keys = np.fromiter(keys, "S8", sum(sizes)).view(np.uint64)
  first = np.zeros(len(keys), bool)
  first[np.unique(keys, return_index=True)[1]] = True
  return np.split(first, np.cumsum(sizes)[:-1]) if sizes else []


class BlockStore:
  """The blocks of a corpus, memory-mapped.

  Attributes:
    ragged: all that has rows of different lengths, by name.
    meta: tokenizer_hash, corpus_hash, num_blocks, num_articles,
      num_sentences, num_tokens, block_len.
    sentence_splitter: what found their sentences, see sentences.make_splitter.
    tokens: title and body wordpieces of each block in one row.
    title_lens: [N] wordpieces of each title.
    articles: [N] the article of each block, a row of article_ids.
    article_ids: texts, those of articles without a block among them.
  """

  def __init__(self, directory: str | os.PathLike):
    directory = pathlib.Path(directory)
    self.meta = files.read_json(directory / "meta.json")
    # Stores of before it was a choice don't say.
    self.sentence_splitter = self.meta.get("sentence_splitter", sentences.RULES)
    self.ragged = {name: Ragged(directory, name) for name in RAGGED}
    self.tokens = self.ragged["tokens"]
    self.title_lens = open_array(directory / "title_lens.npy")
    self._starts = self.ragged["sentence_starts"]
    self._bytes = self.ragged["sentence_bytes"]
    self._text = self.ragged["text"]
    self.articles = open_array(directory / "articles.npy")
    self.article_ids = self.ragged["article_ids"]
    self._titles = self.ragged["article_titles"]
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
    return self._titles.text(self.articles[block])

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

  def sentence_at(self, block: int, wordpiece: int) -> tuple[str, int, int]:
    """The raw sentence that a wordpiece of a body is in, and where it begins.

    Returns:
      Its text, its first byte in the block's text, its first wordpiece in the
      body. Sentences are what was tokenised, each by itself.
    """
    starts = self._starts[block]
    at = int(np.searchsorted(starts, wordpiece, side="right")) - 1
    first_byte = int(self._bytes[block][at])
    return self.sentences(block)[at], first_byte, int(starts[at])

  def article_id(self, block: int) -> str:
    return self.article_ids.text(self.articles[block])

  @property
  def num_articles(self) -> int:
    """Articles, those without a block among them."""
    return len(self.article_ids)

  def has_article(self, article_id: str) -> bool:
    """Whether there is an article of this id, with blocks or without."""
    return self.row_of_article(article_id) is not None

  def article_title(self, article_id: str) -> str:
    """The title of an article that is there."""
    return self._titles.text(self.row_of_article(article_id))

  def block_of_article(self, article_id: str) -> list[int]:
    """Ids of an article's blocks, in order; [] where it has none."""
    row = self.row_of_article(article_id)
    if row is None:
      return []
    first, last = np.searchsorted(self.articles, [row, row + 1])
    return list(range(first, last))

  def row_of_article(self, article_id: str) -> int | None:
    """Its row of article_ids; None: there is no such article."""
    if not self._rows:
      texts = self.article_ids.texts(0, self.num_articles)
      self._rows = {text: row for row, text in enumerate(texts)}
    return self._rows.get(article_id)

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
    self, block_len: int, num_rows: int | None = None, first: int = 0
  ) -> "types.BlockTokens":
    """All blocks, or those from `first` on, as one padded array for the mesh.

    Args:
      block_len: C that the embedder reads; longer blocks are cut.
      num_rows: where the rows end, N by default; those beyond N are padding.
      first: where they begin.

    Returns:
      BlockTokens of NumPy arrays, token_ids [num_rows - first, C - 3].
    """
    last = len(self) if num_rows is None else num_rows
    return self.take(np.arange(first, last), block_len)

  def take(self, ids: np.ndarray, block_len: int) -> "types.BlockTokens":
    """The tokens of the blocks `ids` [n], as device_tokens has them."""
    from realm_jax import types

    width = block_len - packing.NUM_SPECIALS
    there = ids < len(self)
    ids = np.where(there, ids, 0)
    starts = self.tokens.offsets[ids]
    lens = np.where(there, self.tokens.offsets[ids + 1] - starts, 0)
    title_lens = np.where(there, self.title_lens[ids], 0)
    flat, pad_id = self.tokens.flat, self.meta["pad_id"]
    token_ids = take_rows(flat, starts, lens, width, fill=pad_id)
    return types.BlockTokens(
      token_ids=token_ids.astype(flat.dtype),
      title_lens=np.minimum(title_lens, width).astype(np.int32),
      lens=np.minimum(lens, width).astype(np.int32),
    )

  def will_need(self, ids: np.ndarray) -> None:
    """Has the tokens of these blocks [n] read from the disk, all at once.

    Args:
      ids: in their order; from N on they are padding.
    """
    self.tokens.will_need(ids[ids < len(self)])
