"""The first step of preparation: pages of all sources to clean articles.

A shard holds a few megabytes of a source: articles.jsonl, and counts.json with
what its pages became.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data import corpora, pages
from realm_jax.data.articles import Article
from realm_jax.data.corpora import Part
from realm_jax.data.pages import Page

_SHARD_CHARS = 1 << 21  # markup of a shard; a page is never cut
_SHARD_PAGES = 10_000


class PageShard(NamedTuple):
  """Pages that follow each other; those dropped already are only counted."""

  part: Part
  pages: list[Page]
  dropped: collections.Counter[str]


@dataclasses.dataclass(frozen=True)
class MakeArticles:
  """Parts to shards of articles.

  Attributes:
    max_pages: read of a job, those aside that reading drops; 0: all.
    shard_chars: a shard ends with the page that reaches so many.
  """

  max_pages: int = 0
  shard_chars: int = _SHARD_CHARS
  name: str = "articles"

  def jobs(self, parts: Sequence[Part]) -> list[tuple[Part, ...]]:
    """What may be read at the same time: all, unless they share a limit."""
    return [tuple(parts)] if self.max_pages else [(part,) for part in parts]

  def split(self, job: Sequence[Part]) -> Iterator[PageShard]:
    left = self.max_pages or -1
    for part in job:
      shard = PageShard(part, [], collections.Counter())
      num_chars = 0
      for page in corpora.read(part) if left else ():
        if page.dropped:
          shard.dropped[page.dropped] += 1
        else:
          shard.pages.append(page)
          num_chars += len(page.text)
          left -= 1
        num_pages = len(shard.pages) + shard.dropped.total()
        if num_chars >= self.shard_chars or num_pages >= _SHARD_PAGES:
          yield shard
          shard = PageShard(part, [], collections.Counter())
          num_chars = 0
        if not left:
          break
      if shard.pages or shard.dropped:
        yield shard

  def make(self, shard: PageShard, path: pathlib.Path) -> None:
    counts = collections.Counter(shard.dropped)
    counts[pages.PAGES] = shard.dropped.total() + len(shard.pages)
    with files.atomic_publish(path) as tmp:
      tmp.mkdir()
      with open(tmp / "articles.jsonl", "w", encoding="utf-8") as out:
        for page in shard.pages:
          article, said = corpora.make_article(shard.part, page)
          counts.update(filter(None, [said]))
          if article:
            counts[pages.ARTICLES] += 1
            out.write(json.dumps(article, ensure_ascii=False) + "\n")
      meta = {"source": shard.part.source, "whole": shard.part.whole}
      (tmp / "counts.json").write_text(json.dumps({**meta, "counts": counts}))


def check_sources(
  sources: Iterable[str], shards: Iterable[pathlib.Path]
) -> None:
  """Refuses a corpus with a source of which no article is left.

  Args:
    sources: their names.
    shards: of all of them.

  Raises:
    InputError: names the source and what became of its pages.
  """
  found: dict[str, collections.Counter[str]] = {
    name: collections.Counter() for name in sources
  }
  for shard in shards:
    meta = files.read_json(shard / "counts.json")
    found[meta["source"]].update(meta["counts"])
  for name, counts in found.items():
    if not counts[pages.ARTICLES]:
      said = ", ".join(f"{count} {what}" for what, count in counts.items())
      raise InputError(
        f'empty corpus: no article in "{name}" of data.corpus'
        f" ({said or 'no pages'}): name another source"
      )


def read_shards(shards: Iterable[pathlib.Path]) -> Iterator[Article]:
  """The articles of some shards, in order."""
  for shard in shards:
    with open(shard / "articles.jsonl", encoding="utf-8") as lines:
      for line in lines:
        yield Article(*json.loads(line))
