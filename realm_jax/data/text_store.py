"""Pre-training texts: wordpieces with their salient spans, ready to mask.

A record is one sentence (or line) with at least one span. Preparation writes
records as ragged arrays; MaskedTexts reads them a batch at a time and picks
one span of each record anew every epoch.
"""

import bisect
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from realm_jax import files, types
from realm_jax.config import InputError
from realm_jax.data import features, masking
from realm_jax.data.masking import SALIENT, Masking
from realm_jax.data.ragged import (
  FlatWriter,
  Ragged,
  RaggedWriter,
  open_array,
  take_rows,
)
from realm_jax.data.salient_spans import Span
from realm_jax.data.tokenizer import Offsets, Tokenizer

SPLITS = ("train", "dev", "test")
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
    chunk: list[Record] = []
    for record in records:
      writer.num_read += 1
      if record.spans:
        chunk.append(record)
      if len(chunk) == _CHUNK:
        writer.add(chunk)
        chunk = []
    writer.add(chunk)
    counts = writer.close(hold_out)
    if not counts["num_records"]:
      raise InputError(
        f'data.text="{source}": none of its {counts["num_read"]} sentences has'
        " a salient span (a name, a date or a number with a unit) to mask"
      )
    meta = {"source": source, "tokenizer_hash": tokenizer.hash, **counts}
    (tmp / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
  return counts


class MaskedTexts:
  """The records of one split that have a span which fits the query, masked.

  They are the same records for every kind of masking.

  Raises:
    InputError: the store belongs to another tokenizer.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    split: str,
    tokenizer: Tokenizer,
    *,
    query_len: int,
    max_masks: int,
    masking: Masking = SALIENT,
  ):
    features.check_length("query_len", query_len, 2)
    directory = pathlib.Path(directory)
    meta = files.read_json(directory / "meta.json")
    check_tokenizer(directory, meta, tokenizer)
    self._sizes = {"query_len": query_len, "max_masks": max_masks}
    self._tokenizer, self._masking = tokenizer, masking
    self._tokens = Ragged(directory, "tokens")
    self._own = open_array(directory / "own_block.npy")
    self._gold = open_array(directory / "gold_block.npy")
    spans = Ragged(directory, "spans")
    pairs = spans.flat.reshape(-1, 2)
    record = np.repeat(np.arange(len(spans)), spans.lens() // 2)
    of_split = open_array(directory / "split.npy") == SPLITS.index(split)
    usable = (pairs[:, 1] <= query_len - 2) & of_split[record]
    self._spans = pairs[usable]
    self._records, self._first, self._num_spans = np.unique(
      record[usable], return_index=True, return_counts=True
    )

  def __len__(self) -> int:
    return len(self._records)

  def rows(
    self, positions: np.ndarray, uniform: np.ndarray
  ) -> types.PretrainBatch:
    """The batch of some records.

    Args:
      positions: [B] numbers below len(self); a negative one makes a row
        without targets and with example id -1.
      uniform: [B, 3] in [0, 1), chooses the masks.
    """
    real = positions >= 0
    positions = np.maximum(positions, 0)
    record = self._records[positions]
    choice = uniform[:, 0] * self._num_spans[positions]
    span = self._spans[self._first[positions] + choice.astype(np.int64)]
    starts = self._tokens.offsets[record]
    lens = self._tokens.offsets[record + 1] - starts
    width = self._sizes["query_len"] - 2
    ids = take_rows(
      self._tokens.flat, starts, lens, width, fill=self._tokenizer.pad_id
    )
    masked = self._mask(ids, lens, span, uniform[:, 1])
    return types.PretrainBatch(
      query=masked.query,
      mlm_positions=masked.positions,
      mlm_targets=masked.targets,
      mlm_mask=masked.mask * real[:, None].astype(np.int32),
      own_block=np.where(real, self._own[record], -1).astype(np.int32),
      gold_block=np.where(real, self._gold[record], -1).astype(np.int32),
      example_ids=np.where(real, record, -1).astype(np.int64),
    )

  def _mask(self, ids, lens, span, uniform) -> masking.Masked:
    sizes = {**self._sizes, "tokenizer": self._tokenizer}
    kind = self._masking.kind
    if kind == "uniform":
      return masking.mask_anywhere(
        ids, lens, uniform, share=self._masking.share, **sizes
      )
    if kind == "span":
      seen = np.minimum(lens, ids.shape[1])
      span = masking.move_spans(span, seen, uniform)
    return masking.mask_spans(ids, lens, span, **sizes)


def check_tokenizer(
  directory: pathlib.Path, meta: dict[str, Any], tokenizer: Tokenizer
) -> None:
  """InputError unless `directory` was made with this tokenizer."""
  if meta["tokenizer_hash"] != tokenizer.hash:
    raise InputError(
      f"{directory}: made with the vocabulary {meta['tokenizer_hash'][:12]},"
      f" but the tokenizer is {tokenizer.hash[:12]}: prepare the data again"
    )


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

  def __init__(self, directory: pathlib.Path, tokenizer: Tokenizer):
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32
    self._tokenizer = tokenizer
    self._directory = directory
    self._tokens = RaggedWriter(directory, "tokens", dtype)
    self._spans = RaggedWriter(directory, "spans", np.int32)
    self._own = FlatWriter(directory / "own_block.npy", np.int32)
    self._gold = FlatWriter(directory / "gold_block.npy", np.int32)
    self._splits: list[int] = []
    self._hashes: list[int] = []
    self._num_spans = 0
    self.num_read = 0

  def add(self, records: list[Record]) -> None:
    encoded = self._tokenizer.encode_batch_with_offsets(
      [r.text for r in records]
    )
    for record, (ids, offsets) in zip(records, encoded, strict=True):
      spans = token_spans(offsets, record.spans)
      if not spans:
        continue
      self._tokens.append(ids)
      self._spans.append(spans)
      self._own.extend([record.own_block])
      self._gold.extend([record.gold_block])
      self._splits.append(SPLITS.index(record.split))
      digest = hashlib.sha256(record.text.encode()).digest()
      self._hashes.append(int.from_bytes(digest[:8], "big"))
      self._num_spans += len(spans) // 2

  def close(self, hold_out: bool) -> dict[str, int]:
    for writer in (self._tokens, self._spans, self._own, self._gold):
      writer.close()
    splits = np.array(self._splits, np.int8)
    if hold_out:
      splits = _splits_by_hash(np.array(self._hashes, np.uint64))
    np.save(self._directory / "split.npy", splits)
    return {
      "num_read": self.num_read,
      "num_records": len(splits),
      "num_spans": self._num_spans,
      **{s: int(np.sum(splits == i)) for i, s in enumerate(SPLITS)},
    }


def _splits_by_hash(hashes: np.ndarray) -> np.ndarray:
  """The lowest hashes to dev, the next to test: at least one each of three."""
  splits = np.zeros(len(hashes), np.int8)
  share = max(len(hashes) // _HELD_OUT, int(len(hashes) >= 3))
  order = np.argsort(hashes, kind="stable")
  splits[order[:share]] = SPLITS.index("dev")
  splits[order[share : 2 * share]] = SPLITS.index("test")
  return splits
