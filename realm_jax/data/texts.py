"""Where pre-training texts come from: the corpus, leads, a user's files.

Each text becomes a record of the text store: one sentence or line with its
salient spans, the block it comes from, and its split.
"""

import array
import collections
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data import text_writer
from realm_jax.data.articles import text_field
from realm_jax.data.blocks import BlockStore
from realm_jax.data.ragged import open_array
from realm_jax.data.salient_spans import Annotator, Span
from realm_jax.data.sentences import Splitter, split_sentences
from realm_jax.data.sources import LeadQuestion, words
from realm_jax.data.text_writer import Record
from realm_jax.data.wordpieces import char_to_byte

Dropped = collections.Counter[str]


def block_sentences(
  store: BlockStore,
  annotate: Annotator,
  skip: np.ndarray,
  blocks: range,
  dropped: Dropped,
) -> Iterator[Record]:
  """The sentences of some blocks; skip names those left out.

  Their own block is trivial to retrieve and known to hold the evidence, so it
  is both own_block and gold_block.
  """
  number = int(store.ragged["sentence_starts"].offsets[blocks.start])
  skipped = set(skip[np.searchsorted(skip, number) :].tolist())
  spans = annotate([(store.text(i), store.title(i)) for i in blocks])
  for block, of_block in zip(blocks, spans, strict=True):
    start = 0
    for sentence in store.sentences(block):
      end = start + len(sentence.encode())
      if number in skipped:
        dropped[text_writer.HELD_OUT] += 1
      else:
        yield Record(sentence, _inside(of_block, start, end), block, block)
      start = end + 1
      number += 1


def lead_lines(
  questions: Iterable[LeadQuestion], store: BlockStore
) -> Iterator[Record]:
  """Lines "title : description" with the title as the one span."""
  for q in questions:
    blocks = store.block_of_article(q.article_id)
    yield Record(
      text=f"{q.answer} : {q.question}",
      spans=[(0, len(q.answer.encode()), "title")],
      gold_block=blocks[0] if blocks else -1,
      split=q.split,
    )


def read_texts(
  records: Sequence[tuple[str, dict[str, Any]]],
  own: "OwnBlocks",
  annotate: Annotator,
  dropped: Dropped,
  split: Splitter = split_sentences,
) -> Iterator[Record]:
  """The sentences of {"title", "text"} records, annotated or not.

  Annotated ones carry "spans" and perhaps "sentences" (without, the text is
  one): objects with "start" and "limit", BYTE offsets into "text", as tfds
  salient_span_wikipedia has them. A sentence that stands in a block of an
  article of the same title has that block as its own.

  Args:
    records: ("file:line", object) pairs.
    own: the blocks.
    annotate: finds the spans where there are none, of all records at once.
    dropped: counts spans and sentences that cut a character.
    split: finds the sentences of a text without spans and sentences.

  Raises:
    InputError: a record that is not of this form.
  """
  pairs = [
    (text_field(record, "text", place), text_field(record, "title", place))
    for place, record in records
  ]
  bare = [i for i, (_, record) in enumerate(records) if "spans" not in record]
  found = dict(zip(bare, annotate([pairs[i] for i in bare]), strict=True))
  for i, (place, record) in enumerate(records):
    text, title = pairs[i]
    raw = text.encode()
    spans = found.get(i)
    if spans is None:
      given = _ranges(record, "spans", len(raw), place)
      whole = _whole(given, raw, text_writer.CUT_SPAN, dropped)
      spans = [(start, end, "") for start, end in whole]
    if "sentences" in record:
      given = _ranges(record, "sentences", len(raw), place)
      sentences = _whole(given, raw, text_writer.CUT_SENTENCE, dropped)
    elif "spans" in record:
      sentences = [(0, len(raw))]
    else:
      at = char_to_byte(text)
      sentences = [(at[a], at[b]) for a, b in split(text)]
    for start, end in sentences:
      sentence = raw[start:end].decode()
      block = own.find(title, sentence)
      yield Record(sentence, _inside(spans, start, end), block, block)


class OwnBlocks:
  """The block in which a sentence of an article stands, memory-mapped.

  Sentences are known by 64 bits of a hash, of title and sentence.
  """

  def __init__(self, directory: pathlib.Path):
    self._keys = open_array(directory / "keys.npy")
    self._blocks = open_array(directory / "blocks.npy")

  def find(self, title: str, sentence: str) -> int:
    """The last block with the sentence, -1 if there is none."""
    key = _key(title, sentence)
    at = int(np.searchsorted(self._keys, np.uint64(key), side="right")) - 1
    return int(self._blocks[at]) if at >= 0 and self._keys[at] == key else -1


def write_own_blocks(directory: pathlib.Path, store: BlockStore) -> None:
  """Publishes what OwnBlocks reads: 12 bytes a sentence."""
  keys, blocks = array.array("Q"), array.array("i")
  for block in range(len(store)):
    title = store.title(block)
    for sentence in store.sentences(block):
      keys.append(_key(title, sentence))
      blocks.append(block)
  order = np.argsort(keys, kind="stable")
  with files.atomic_publish(directory) as tmp:
    tmp.mkdir()
    np.save(tmp / "keys.npy", np.array(keys, np.uint64)[order])
    np.save(tmp / "blocks.npy", np.array(blocks, np.int32)[order])


def held_out_sentences(
  store: BlockStore, questions: Iterable[LeadQuestion]
) -> np.ndarray:
  """Numbers of the corpus' sentences that hold a dev or test question.

  No training on text may show them: neither pre-training nor ICT.
  """
  phrases: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
  for q in questions:
    if q.split != "train":
      phrase = tuple(words(q.question))
      phrases.setdefault(phrase[:2], set()).add(phrase)
  found, number = [], 0
  for block in range(len(store) if phrases else 0):
    for sentence in store.sentences(block):
      if _holds_phrase(words(sentence), phrases):
        found.append(number)
      number += 1
  return np.array(found, np.int64)


def _holds_phrase(
  text: list[str], phrases: dict[tuple[str, ...], set[tuple[str, ...]]]
) -> bool:
  return any(
    tuple(text[i : i + len(phrase)]) == phrase
    for i in range(len(text))
    for phrase in phrases.get(tuple(text[i : i + 2]), ())
  )


def _inside(spans: Iterable[Span], start: int, end: int) -> list[Span]:
  """The spans that lie in a sentence, counted from its beginning."""
  return [
    (a - start, b - start, label)
    for a, b, label in spans
    if start <= a and b <= end
  ]


def _key(title: str, sentence: str) -> int:
  text = f"{title}\0{sentence}".encode()
  return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def _ranges(
  record: dict[str, Any], name: str, limit: int, place: str
) -> list[tuple[int, int]]:
  try:
    ranges = [(int(r["start"]), int(r["limit"])) for r in record[name]]
  except (TypeError, KeyError, ValueError) as e:
    raise InputError(
      f'{place}: "{name}" must be a list of objects with "start" and "limit"'
    ) from e
  for start, end in ranges:
    if not 0 <= start < end <= limit:
      raise InputError(
        f'{place}: "{name}" has the range {start}-{end}, but "text" has'
        f" {limit} bytes"
      )
  return ranges


def _whole(
  ranges: Iterable[tuple[int, int]], raw: bytes, reason: str, dropped: Dropped
) -> list[tuple[int, int]]:
  """Those that cut no character in two; the others are counted."""
  kept = []
  for start, end in ranges:
    if any(raw[i : i + 1] and raw[i] & 0xC0 == 0x80 for i in (start, end)):
      dropped[reason] += 1
    else:
      kept.append((start, end))
  return kept
