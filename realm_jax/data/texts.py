"""Where pre-training texts come from: the corpus, leads, a user's files.

Each text becomes a record of the text store: one sentence or line with its
salient spans, the block it comes from, and its split.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from realm_jax.config import InputError
from realm_jax.data import text_store
from realm_jax.data.articles import text_field
from realm_jax.data.blocks import BlockStore
from realm_jax.data.salient_spans import Annotator
from realm_jax.data.sentences import split_sentences
from realm_jax.data.sources import LeadQuestion, words
from realm_jax.data.wordpieces import char_to_byte


def block_sentences(
  store: BlockStore, annotate: Annotator, skip: np.ndarray
) -> Iterator[text_store.Record]:
  """The sentences of the corpus itself; skip names those left out.

  Their own block is trivial to retrieve and known to hold the evidence, so it
  is both own_block and gold_block.
  """
  skipped = set(skip.tolist())
  number = -1
  for block in range(len(store)):
    spans = annotate(store.text(block), store.title(block))
    start = 0
    for sentence in store.sentences(block):
      number += 1
      end = start + len(sentence.encode())
      inside = [
        (a - start, b - start, label)
        for a, b, label in spans
        if start <= a and b <= end
      ]
      start = end + 1
      if number not in skipped:
        yield text_store.Record(sentence, inside, block, block)


def lead_lines(
  questions: Iterable[LeadQuestion], store: BlockStore
) -> Iterator[text_store.Record]:
  """Lines "title : description" with the title as the one span."""
  for q in questions:
    blocks = store.block_of_article(q.article_id)
    yield text_store.Record(
      text=f"{q.answer} : {q.question}",
      spans=[(0, len(q.answer.encode()), "title")],
      gold_block=blocks[0] if blocks else -1,
      split=q.split,
    )


def read_texts(
  records: Iterable[tuple[str, dict[str, Any]]],
  store: BlockStore,
  annotate: Annotator,
) -> Iterator[text_store.Record]:
  """The sentences of {"title", "text"} records, annotated or not.

  Annotated ones carry "spans" and perhaps "sentences" (without, the text is
  one): objects with "start" and "limit", BYTE offsets into "text", as tfds
  salient_span_wikipedia has them. A sentence that stands in a block of an
  article of the same title has that block as its own.

  Args:
    records: ("file:line", object) pairs.
    store: the blocks.
    annotate: finds the spans where there are none.
  """
  own = _own_blocks(store)
  for place, record in records:
    title = text_field(record, "title", place)
    text = text_field(record, "text", place)
    yield from _text_records(record, title, text, place, annotate, own)


def _text_records(
  record: dict[str, Any],
  title: str,
  text: str,
  place: str,
  annotate: Annotator,
  own: dict[bytes, int],
) -> Iterator[text_store.Record]:
  """Cuts one text, annotated or not, into records."""
  raw = text.encode()
  if "spans" in record:
    spans = [(*s, "") for s in _ranges(record, "spans", len(raw), place)]
    sentences = [(0, len(raw))]
  else:
    at = char_to_byte(text)
    spans = annotate(text, title)
    sentences = [(at[a], at[b]) for a, b in split_sentences(text)]
  if "sentences" in record:
    sentences = _ranges(record, "sentences", len(raw), place)
  for start, end in sentences:
    inside = [
      (a - start, b - start, label)
      for a, b, label in spans
      if start <= a and b <= end
    ]
    sentence = raw[start:end].decode(errors="replace")
    block = own.get(_key(title, sentence), -1)
    yield text_store.Record(sentence, inside, block, block)


def _own_blocks(store: BlockStore) -> dict[bytes, int]:
  """The block of each (title, sentence) of the corpus, by hash."""
  return {
    _key(store.title(block), sentence): block
    for block in range(len(store))
    for sentence in store.sentences(block)
  }


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
  for block in range(len(store)):
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


def _key(title: str, sentence: str) -> bytes:
  return hashlib.sha256(f"{title}\0{sentence}".encode()).digest()[:12]


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
