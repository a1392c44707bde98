"""A living corpus: the block store of an older one with articles changed.

The articles that stay keep their order and come first, then come the new ones
in theirs, so the same changes give the same ids, and the store is the one that
write_block_store makes of these articles. An article that changed is taken out
and comes again at the end; one that is given again as it was stays.
"""

import itertools
import os
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data import block_writer, blocks, packing, sentences
from realm_jax.data.articles import Article
from realm_jax.data.tokenizer import Tokenizer


class Change(NamedTuple):
  """What became of a corpus.

  Attributes:
    kept: [n] ids in the old store of the blocks that stayed; they are the
      first n blocks of the new one.
    counts: articles "added", "updated", "deleted", "unchanged" (given again
      as they were) and "kept" (not mentioned).
  """

  kept: np.ndarray
  counts: dict[str, int]


def update_block_store(
  directory: str | os.PathLike,
  old: blocks.BlockStore,
  tokenizer: Tokenizer,
  add: Iterable[Article] = (),
  delete: Collection[str] = (),
  replace: bool = False,
) -> Change:
  """Publishes a block store of changed articles.

  Args:
    directory: where.
    old: the store that is changed; it stays as it is.
    tokenizer: the old store's.
    add: new articles, and new texts of old ones (the same id).
    delete: ids of articles.
    replace: whether all articles go that `add` does not have.

  Returns:
    What changed.

  Raises:
    InputError: an id to delete that is not there, or to be added too, no
      change, no block left, or no space left.
  """
  news = _News(old, tokenizer, add)
  unknown = [i for i in delete if not old.has_article(i)]
  if unknown:
    raise InputError(f'delete: the corpus has no article "{unknown[0]}"')
  if both := [i for i in delete if i in news.seen]:
    raise InputError(f'the article "{both[0]}" is to be added and deleted')
  gone = {*delete}
  if replace:
    ids = old.article_ids.texts(0, old.num_articles)
    gone |= {i for i in ids if i not in news.seen}
  stays = np.ones(old.num_articles, bool)
  stays[[old.row_of_article(i) for i in gone | news.updated]] = False
  added = len(news.articles) - len(news.updated)
  counts = {
    "added": added,
    "updated": len(news.updated),
    "deleted": len(gone),
    "unchanged": len(news.seen) - len(news.articles),
  }
  if not (news.articles or gone):
    raise InputError("nothing to change: the corpus has it all just so")
  counts["kept"] = int(stays.sum()) - counts["unchanged"]
  with files.atomic_publish(directory) as tmp:
    tmp.mkdir()
    writer = block_writer.StoreWriter(tmp, tokenizer, old.sentence_splitter)
    for first, last in block_writer.runs(stays):
      writer.copy(old, first, last)
    for article, packed in news.articles:
      writer.add(article, packed)
    writer.finish(old.meta["block_len"], {"changed": counts})
  return Change(np.flatnonzero(stays[old.articles]), counts)


class _News:
  """The articles that are given, those aside that the old store has so.

  Attributes:
    articles: (article, its blocks) of those that are new or not as they were.
    seen: ids of all that are given.
    updated: ids of those whose text was another.
  """

  def __init__(
    self,
    old: blocks.BlockStore,
    tokenizer: Tokenizer,
    articles: Iterable[Article],
  ):
    self.articles: list[tuple[Article, list[packing.Block]]] = []
    self.seen, self.updated = set(), set()
    split = sentences.make_splitter(old.sentence_splitter)
    for chunk in _chunks(articles):
      packed = packing.pack_articles(
        chunk, tokenizer, old.meta["block_len"], split
      )
      for article, of_article in zip(chunk, packed, strict=True):
        self.seen.add(article.id)
        if old.has_article(article.id):
          if _is_so(old, article, of_article):
            continue
          self.updated.add(article.id)
        self.articles.append((article, of_article))


def _is_so(old, article, packed) -> bool:
  """Whether the store has the article with this title and these texts."""
  ids = old.block_of_article(article.id)
  return old.article_title(article.id) == article.title and [
    old.text(i) for i in ids
  ] == [block.text for block in packed]


def _chunks(articles: Iterable[Article]) -> Iterator[list[Article]]:
  articles = iter(articles)
  while chunk := list(itertools.islice(articles, block_writer.CHUNK)):
    yield chunk
