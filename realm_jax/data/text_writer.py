"""Writes pre-training texts: records, in shards or at once, to a text store.

A record is one sentence (or line) with at least one span; see text_store.
"""

import array
import bisect
import collections
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data.ragged import FlatWriter, Ragged, RaggedWriter, open_array
from realm_jax.data.salient_spans import Span
from realm_jax.data.tokenizer import Offsets, Tokenizer

SPLITS = ("train", "dev", "test")
# Why something is not masked, as preparation counts it.
NO_SPAN = "sentences without a salient span"
NO_WORDPIECE = "sentences whose spans hold no whole wordpiece"
CUT_SPAN = "spans whose offsets cut a character"
CUT_SENTENCE = "sentences whose offsets cut a character"
HELD_OUT = "sentences that hold a held-out question"
_BLOCKS = ("own_block", "gold_block")
_CHUNK = 1024  # records tokenised at once
_HELD_OUT = 20  # one record in so many to dev, and as many to test


class Record(NamedTuple):
  """A text to mask. spans are BYTES of its UTF-8; blocks are -1 if unknown."""

  text: str
  spans: list[Span]
  own_block: int = -1
  gold_block: int = -1
  split: str = "train"


def write_text_store(
  directory: str | os.PathLike,
  records: Iterable[Record],
  tokenizer: Tokenizer,
  *,
  source: str,
  hold_out: bool,
) -> dict[str, Any]:
  """Publishes the records that have a span; returns the counts.

  Args:
    directory: where.
    records: what.
    tokenizer: its hash goes to meta.json.
    source: what the config calls them, for messages.
    hold_out: whether a tenth goes to dev and test by the hash of the text;
      otherwise a record's own split holds.

  Raises:
    InputError: no record has a span.
  """
  with files.atomic_publish(directory) as tmp:
    tmp.mkdir()
    writer = _TextWriter(tmp, tokenizer)
    writer.write(records)
    return writer.close(source, hold_out)


def write_text_shard(
  directory: pathlib.Path,
  records: Iterable[Record],
  tokenizer: Tokenizer,
  dropped: collections.Counter[str],
) -> None:
  """Publishes a part of a text store, for merge_text_stores.

  Args:
    directory: where.
    records: what; there may be none with a span.
    tokenizer: of all shards.
    dropped: what the maker of the records counts meanwhile.
  """
  with files.atomic_publish(directory) as tmp:
    tmp.mkdir()
    writer = _TextWriter(tmp, tokenizer, dropped)
    writer.write(records)
    writer.close_shard()


def merge_text_stores(
  directory: str | os.PathLike,
  shards: Sequence[pathlib.Path],
  tokenizer: Tokenizer,
  *,
  source: str,
  hold_out: bool,
) -> dict[str, Any]:
  """Publishes the store of some shards; see write_text_store."""
  with files.atomic_publish(directory) as tmp:
    tmp.mkdir()
    writer = _TextWriter(tmp, tokenizer)
    for shard in shards:
      writer.copy(shard)
    return writer.close(source, hold_out)


def token_spans(offsets: Offsets, spans: list[Span]) -> list[int]:
  """Spans in bytes to [start, end, start, end, ...] in tokens.

  A span takes the tokens that lie wholly in it; one without any is dropped.
  """
  starts = [start for start, _ in offsets]
  ends = [end for _, end in offsets]
  flat: list[int] = []
  for a, b, _ in spans:
    first = bisect.bisect_left(starts, a)
    last = bisect.bisect_right(ends, b)
    if first < last:
      flat += [first, last]
  return flat


class _TextWriter:
  """Appends records to the files of a text store."""

  def __init__(
    self,
    directory: pathlib.Path,
    tokenizer: Tokenizer,
    dropped: collections.Counter[str] | None = None,
  ):
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
    self._tokenizer = tokenizer
    self._directory = directory
    self._ragged = {
      "tokens": RaggedWriter(directory, "tokens", dtype),
      "spans": RaggedWriter(directory, "spans", np.int32),
    }
    self._blocks = {
      name: FlatWriter(directory / f"{name}.npy", np.int32) for name in _BLOCKS
    }
    self._splits, self._hashes = array.array("b"), array.array("Q")
    self._num_spans = self._num_read = 0
    self._dropped = collections.Counter() if dropped is None else dropped

  def write(self, records: Iterable[Record]) -> None:
    """Appends the records that have a span."""
    chunk: list[Record] = []
    for record in records:
      self._num_read += 1
      if record.spans:
        chunk.append(record)
      else:
        self._dropped[NO_SPAN] += 1
      if len(chunk) == _CHUNK:
        self._add(chunk)
        chunk = []
    self._add(chunk)

  def copy(self, shard: pathlib.Path) -> None:
    """Appends the records of a shard."""
    meta = files.read_json(shard / "meta.json")
    for name, writer in self._ragged.items():
      rows = Ragged(shard, name)
      writer.append_rows(rows, 0, len(rows))
    for name, writer in self._blocks.items():
      writer.extend_array(open_array(shard / f"{name}.npy"))
    self._splits.frombytes(open_array(shard / "split.npy").tobytes())
    self._hashes.frombytes(open_array(shard / "hashes.npy").tobytes())
    self._num_read += meta["num_read"]
    self._num_spans += meta["num_spans"]
    self._dropped.update(meta["dropped"])

  def _add(self, records: list[Record]) -> None:
    encoded = self._tokenizer.encode_batch_with_offsets(
      [r.text for r in records]
    )
    for record, (ids, offsets) in zip(records, encoded, strict=True):
      spans = token_spans(offsets, record.spans)
      if not spans:
        self._dropped[NO_WORDPIECE] += 1
        continue
      self._ragged["tokens"].append(ids)
      self._ragged["spans"].append(spans)
      for name, writer in self._blocks.items():
        writer.extend([getattr(record, name)])
      self._splits.append(SPLITS.index(record.split))
      digest = hashlib.sha256(record.text.encode()).digest()
      self._hashes.append(int.from_bytes(digest[:8], "big"))
      self._num_spans += len(spans) // 2

  def close_shard(self) -> None:
    """Writes the rest of a shard."""
    np.save(self._directory / "hashes.npy", np.array(self._hashes, np.uint64))
    self._finish({}, np.array(self._splits, np.int8))

  def close(self, source: str, hold_out: bool) -> dict[str, Any]:
    """Writes the rest and meta.json; returns the counts.

    Raises:
      InputError: there is no record.
    """
    if not self._splits:
      raise InputError(
        f'data.text="{source}": none of its {self._num_read} sentences has'
        " a salient span (a name, a date or a number with a unit) to mask"
      )
    splits = np.array(self._splits, np.int8)
    if hold_out:
      splits = _splits_by_hash(np.array(self._hashes, np.uint64))
    return self._finish({"source": source}, splits)

  def _finish(self, meta: dict[str, Any], splits: np.ndarray) -> dict[str, Any]:
    for writer in (*self._ragged.values(), *self._blocks.values()):
      writer.close()
    np.save(self._directory / "split.npy", splits)
    counts = {
      "num_read": self._num_read,
      "num_records": len(splits),
      "num_spans": self._num_spans,
      "dropped": dict(sorted(self._dropped.items())),
      **{s: int(np.sum(splits == i)) for i, s in enumerate(SPLITS)},
    }
    meta = {**meta, "tokenizer_hash": self._tokenizer.hash, **counts}
    path = self._directory / "meta.json"
    path.write_text(json.dumps(meta, indent=2) + "\n")
    return counts


def _splits_by_hash(hashes: np.ndarray) -> np.ndarray:
  """The lowest hashes to dev, the next to test: at least one each of three."""
  splits = np.zeros(len(hashes), np.int8)
  share = max(len(hashes) // _HELD_OUT, int(len(hashes) >= 3))
  order = np.argsort(hashes, kind="stable")
  splits[order[:share]] = SPLITS.index("dev")
  splits[order[share : 2 * share]] = SPLITS.index("test")
  return splits
