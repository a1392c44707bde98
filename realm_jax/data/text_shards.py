"""The last step of preparation: texts to mask, their salient spans found.

The annotator takes most of the time, so texts go to it many at once, in every
process of the runner.
"""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from realm_jax.data import (
  corpora,
  salient_spans,
  sentences,
  text_writer,
  texts,
  tokenizer,
)
from realm_jax.data.block_shards import open_once
from realm_jax.data.blocks import BlockStore

_SHARD_BLOCKS = 2_000
_SHARD_CHARS = 1 << 20
_SHARD_RECORDS = 10_000

_annotator = functools.lru_cache(maxsize=1)(salient_spans.make_annotator)


@dataclasses.dataclass(frozen=True)
class MaskSentences:
  """Sentences of the corpus to shards of texts; the part is its block count.

  Attributes:
    store: directory of the blocks.
    held_out: .npy of the sentences left out.
    tokenizer: its directory.
    annotator: its name, see salient_spans.make_annotator.
    shard_blocks: of a shard.
  """

  store: pathlib.Path
  held_out: pathlib.Path
  tokenizer: pathlib.Path
  annotator: str
  shard_blocks: int = _SHARD_BLOCKS
  name: str = "sentences"

  def split(self, num_blocks: int) -> Iterator[range]:
    for first in range(0, num_blocks, self.shard_blocks):
      yield range(first, min(first + self.shard_blocks, num_blocks))

  def make(self, blocks: range, path: pathlib.Path) -> None:
    store = open_once(BlockStore, self.store)
    annotate = _annotator(self.annotator)
    skip = np.load(self.held_out, allow_pickle=False)
    dropped: collections.Counter[str] = collections.Counter()
    records = texts.block_sentences(store, annotate, skip, blocks, dropped)
    tok = open_once(tokenizer.load_tokenizer, self.tokenizer)
    text_writer.write_text_shard(path, records, tok, dropped)


@dataclasses.dataclass(frozen=True)
class MaskTexts:
  """Records of a user's source to shards of texts; the part is its name.

  Attributes:
    own: directory of OwnBlocks.
    tokenizer: its directory.
    annotator: its name, see salient_spans.make_annotator.
    splitter: its name, see sentences.make_splitter.
    shard_chars: a shard ends with the text that reaches so many.
  """

  own: pathlib.Path
  tokenizer: pathlib.Path
  annotator: str
  splitter: str
  shard_chars: int = _SHARD_CHARS
  name: str = "texts"

  def split(self, source: str) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    shard: list[tuple[str, dict[str, Any]]] = []
    num_chars = 0
    for place, record in corpora.records(source):
      shard.append((place, record))
      num_chars += len(str(record.get("text", "")))
      if num_chars >= self.shard_chars or len(shard) >= _SHARD_RECORDS:
        yield shard
        shard, num_chars = [], 0
    if shard:
      yield shard

  def make(
    self, records: list[tuple[str, dict[str, Any]]], path: pathlib.Path
  ) -> None:
    own = open_once(texts.OwnBlocks, self.own, "keys.npy")
    annotate = _annotator(self.annotator)
    dropped: collections.Counter[str] = collections.Counter()
    split = sentences.make_splitter(self.splitter)
    made = texts.read_texts(records, own, annotate, dropped, split)
    tok = open_once(tokenizer.load_tokenizer, self.tokenizer)
    text_writer.write_text_shard(path, made, tok, dropped)
