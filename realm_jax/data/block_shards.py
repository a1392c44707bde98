"""The second step of preparation: articles to blocks, a block store a shard."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from realm_jax import files
from realm_jax.data import (
  article_shards,
  block_writer,
  sentences,
  tokenizer,
)


@dataclasses.dataclass(frozen=True)
class MakeBlocks:
  """Shards of articles to shards of blocks.

  Attributes:
    tokenizer: its directory.
    block_len: wordpieces of a block at the most, title and specials too.
    splitter: its name, see sentences.make_splitter.
  """

  tokenizer: pathlib.Path
  block_len: int
  splitter: str = sentences.RULES
  name: str = "blocks"

  def split(self, shards: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
    yield from shards

  def make(self, shard: pathlib.Path, path: pathlib.Path) -> None:
    tok = open_once(tokenizer.load_tokenizer, self.tokenizer)
    meta = files.read_json(shard / "counts.json")
    with files.atomic_publish(path) as tmp:
      tmp.mkdir()
      writer = block_writer.StoreWriter(tmp, tok, self.splitter)
      articles = article_shards.read_shards([shard])
      writer.pack(articles, self.block_len, whole=meta["whole"])
      writer.finish(self.block_len, meta, may_be_empty=True)


def open_once(
  opener: Callable[[pathlib.Path], Any],
  directory: pathlib.Path,
  file: str = "meta.json",
) -> Any:
  """opener(directory), once a process while `file` in it is the same one."""
  found = (directory / file).stat()
  return _opened(opener, directory, (found.st_ino, found.st_mtime_ns))


@functools.lru_cache(maxsize=4)
def _opened(opener, directory, version):
  del version
  return opener(directory)
