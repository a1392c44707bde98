"""Splits text into sentences.

By default by rules for English, without a package or a model: blocks are packed
by sentence and ICT queries are sentences, so a wrong split costs little; a
missing dependency on a fresh machine would cost more. For other languages, or
for who trusts it more, there is Wikimedia's sentencex.
"""

import functools
import re
from collections.abc import Callable

from realm_jax.config import InputError

# text -> (start, end) of its sentences in characters, in order, white space
# around left out; a line break always ends a sentence
Splitter = Callable[[str], list[tuple[int, int]]]

RULES = "rules"
_LANGUAGE = "en"

# Closing marks belong to the sentence that ends, opening ones to the next.
_BOUNDARY = re.compile(r"[.!?…]+[\"'”’)\]]*(\s+)(?=\S)|(\s*\n\s*)")
_ABBREVIATIONS = frozenset(
  "mr mrs ms dr prof rev fr st sr jr hon gov gen col lt maj sgt capt cmdr adm"
  " sen rep pres vs etc e.g i.e cf al ca c approx est fl no nos vol pp p ch"
  " fig ed eds trans lit inc ltd co corp bros dept univ mt ft jan feb mar apr"
  " jun jul aug sep sept oct nov dec b d r ph.d m.d b.a m.a".split()
)
_STARTERS = frozenset(
  "the a an it its he she they his her their in on at as this that these those"
  " there we i by for from after before during although while when since but"
  " and however".split()
)
_NEAR = 64  # characters around a mark that are looked at


@functools.lru_cache(maxsize=4)
def make_splitter(name: str) -> Splitter:
  """The splitter a config names.

  Args:
    name: "rules" (English); "sentencex" or "sentencex:LANGUAGE" (extra
      sentences), such as "sentencex:de".

  Raises:
    InputError: another name, or sentencex isn't installed.
  """
  kind, colon, language = name.partition(":")
  if name == RULES:
    return split_sentences
  if kind == "sentencex" and bool(colon) == bool(language):
    return functools.partial(_by_sentencex, language or _LANGUAGE, _sentencex())
  raise InputError(
    f'data.sentence_splitter="{name}": wanted "rules", "sentencex" or'
    ' "sentencex:LANGUAGE", such as "sentencex:de"'
  )


def _sentencex():
  try:
    import sentencex
  except ImportError as e:
    raise InputError(
      'data.sentence_splitter="sentencex": sentencex is not installed; pip'
      ' install "realm-jax[sentences]", or use data.sentence_splitter="rules"'
    ) from e
  return sentencex


def _by_sentencex(language: str, sentencex, text: str) -> list[tuple[int, int]]:
  found, at = [], 0
  for line in text.splitlines(keepends=True):
    for sentence in sentencex.get_sentence_boundaries(language, line):
      start, end = sentence["start_index"], sentence["end_index"]
      if line[start:end].strip():
        found.append(_strip(text, at + start, at + end))
    at += len(line)
  return found


def split_sentences(text: str) -> list[tuple[int, int]]:
  """Finds the sentences of an English text by rules.

  Returns:
    (start, end) character offsets, in order, white space around left out. A
    line break always ends a sentence.
  """
  sentences, start = [], 0
  for match in _BOUNDARY.finditer(text):
    if match[2] is None and not _ends_sentence(text, start, match):
      continue
    end = match.start() if match[2] is not None else match.start(1)
    sentences.append((start, end))
    start = match.end()
  sentences.append((start, len(text)))
  return [_strip(text, *s) for s in sentences if text[s[0] : s[1]].strip()]


def _ends_sentence(text: str, start: int, match: re.Match) -> bool:
  following = text[match.end() : match.end() + _NEAR].lstrip("\"'“‘([")[:12]
  if following[:1].islower():
    return False
  if text[match.start()] != ".":
    return True
  before = text[max(start, match.start() - _NEAR) : match.start()]
  word = before.rpartition(" ")[2].lstrip("\"'“‘([").lower()
  is_initial = len(word) == 1 and word.isalpha()
  is_acronym = "." in word and len(word.split(".")[-1]) == 1  # u.s, j.r.r
  if is_initial or is_acronym:
    return following.split(" ")[0].lower() in _STARTERS
  return word not in _ABBREVIATIONS


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
  while text[start].isspace():
    start += 1
  while text[end - 1].isspace():
    end -= 1
  return start, end
