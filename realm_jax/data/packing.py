"""Cuts articles into blocks of at most C wordpieces.

Whole sentences are packed greedily, never across articles and without
overlap, as ORQA's wiki_preprocessor does it.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from realm_jax.data.articles import Article
from realm_jax.data.sentences import split_sentences
from realm_jax.data.tokenizer import Tokenizer
from realm_jax.data.wordpieces import char_to_byte

NUM_SPECIALS = 3  # [CLS] title [SEP] body [SEP]


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
  articles: list[Article], tokenizer: Tokenizer, block_len: int
) -> Iterator[list[Block]]:
  """pack_blocks of many articles, tokenised together."""
  texts = [
    [a.text[start:end] for start, end in split_sentences(a.text)]
    for a in articles
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
  if not sentence.ids:
    return
  while len(sentence.ids) > room:
    head, tail = _cut_once(sentence.text, tokenizer, room)
    yield _Sentence(head, tokenizer.encode(head)[:room])
    sentence = _Sentence(tail, tokenizer.encode(tail))
  if sentence.ids:
    yield sentence


def _cut_once(text: str, tokenizer: Tokenizer, room: int) -> tuple[str, str]:
  _, offsets = tokenizer.encode_with_offsets(text)
  limit = char_to_byte(text).index(offsets[room][0])
  space = text.rfind(" ", 1, limit)
  at = space if space > 0 else limit
  return text[:at].strip(), text[at:].strip()
