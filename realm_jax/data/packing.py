"""Cuts articles into blocks of at most C wordpieces.

Whole sentences are packed greedily, never across articles and without
overlap, as ORQA's wiki_preprocessor does it.
"""

import bisect
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from realm_jax.data.articles import Article
from realm_jax.data.sentences import Splitter, split_sentences
from realm_jax.data.tokenizer import Tokenizer
from realm_jax.data.wordpieces import char_to_byte

NUM_SPECIALS = 3  # [CLS] title [SEP] body [SEP]
_WINDOW = 8  # characters a wordpiece; prose has four or five


class Block(NamedTuple):
  """A packed block; text is its sentences joined with one space.

  sentence_starts are offsets into body_ids, sentence_bytes into the UTF-8 of
  text.
  """

  title_ids: list[int]
  body_ids: list[int]
  sentence_starts: list[int]
  sentence_bytes: list[int]
  text: str


class _Sentence(NamedTuple):
  text: str
  ids: list[int]


def pack_blocks(
  article: Article, tokenizer: Tokenizer, block_len: int
) -> list[Block]:
  """Cuts one article into blocks with 3 + title + body <= block_len.

  A title longer than a third of a block is cut for the wordpieces (its text
  stays whole); a sentence longer than a block is cut between words.
  """
  return next(pack_articles([article], tokenizer, block_len))


def pack_articles(
  articles: list[Article],
  tokenizer: Tokenizer,
  block_len: int,
  split: Splitter = split_sentences,
) -> Iterator[list[Block]]:
  """pack_blocks of many articles, tokenised together."""
  texts = [
    [a.text[start:end] for start, end in split(a.text)] for a in articles
  ]
  titles = tokenizer.encode_batch([a.title for a in articles])
  ids = iter(tokenizer.encode_batch([s for text in texts for s in text]))
  for whole_title, sentences in zip(titles, texts, strict=True):
    title_ids = whole_title[: block_len // 3]
    room = block_len - NUM_SPECIALS - len(title_ids)
    pieces = [
      piece
      for text in sentences
      for piece in _cut(_Sentence(text, next(ids)), tokenizer, room)
    ]
    yield [_block(title_ids, group) for group in _pack(pieces, room)]


def pack_whole(
  articles: list[Article],
  tokenizer: Tokenizer,
  block_len: int,
  split: Splitter = split_sentences,
) -> Iterator[list[Block]]:
  """Makes one block of each article: its text whole, its wordpieces cut."""
  for article in articles:
    text = article.text
    # A store leaves out the byte before a sentence: it must be a blank.
    starts = [a for a, _ in split(text)[1:] if text[a - 1].isascii()]
    bounds = [0, *starts, len(text)]
    sentences = [text[a:b] for a, b in itertools.pairwise(bounds)]
    ids = tokenizer.encode_batch(sentences)
    title_ids = tokenizer.encode(article.title)[: block_len // 3]
    room = block_len - NUM_SPECIALS - len(title_ids)
    begins = [0, *itertools.accumulate(map(len, ids))]
    kept = [
      i for i, begin in enumerate(begins[:-1]) if (ids[i] and begin < room)
    ]
    kept = [0, *kept[1:]]
    at = char_to_byte(text)
    yield [
      Block(
        title_ids=title_ids,
        body_ids=[i for sentence in ids for i in sentence][:room],
        sentence_starts=[begins[i] for i in kept],
        sentence_bytes=[at[bounds[i]] for i in kept],
        text=text,
      )
    ]


def _pack(sentences: list[_Sentence], room: int) -> Iterator[list[_Sentence]]:
  group: list[_Sentence] = []
  used = 0
  for sentence in sentences:
    if group and used + len(sentence.ids) > room:
      yield group
      group, used = [], 0
    group.append(sentence)
    used += len(sentence.ids)
  if group:
    yield group


def _block(title_ids: list[int], sentences: list[_Sentence]) -> Block:
  lens = [len(s.ids) for s in sentences]
  num_bytes = [len(s.text.encode()) + 1 for s in sentences]
  return Block(
    title_ids=title_ids,
    body_ids=[i for s in sentences for i in s.ids],
    sentence_starts=[0, *itertools.accumulate(lens[:-1])],
    sentence_bytes=[0, *itertools.accumulate(num_bytes[:-1])],
    text=" ".join(s.text for s in sentences),
  )


def _cut(
  sentence: _Sentence, tokenizer: Tokenizer, room: int
) -> Iterator[_Sentence]:
  """Yields the sentence, in pieces of at most `room` wordpieces."""
  if len(sentence.ids) <= room:
    if sentence.ids:
      yield sentence
    return
  rest = sentence.text
  while rest:
    head, rest = _cut_once(rest, tokenizer, room)
    if ids := tokenizer.encode(head)[:room]:
      yield _Sentence(head, ids)


def _cut_once(text: str, tokenizer: Tokenizer, room: int) -> tuple[str, str]:
  """Cuts off `room` wordpieces; a text of a million is not read anew for it."""
  size = room * _WINDOW
  while True:
    window = text[:size]
    _, offsets = tokenizer.encode_with_offsets(window)
    if len(offsets) > room:
      break
    if size >= len(text):
      return text, ""
    size *= 2
  # A byte inside a character (SentencePiece has such pieces) stands for it.
  limit = bisect.bisect_right(char_to_byte(window), offsets[room][0]) - 1
  space = window.rfind(" ", 1, limit)
  at = space if space > 0 else max(limit, 1)
  return text[:at].strip(), text[at:].strip()
