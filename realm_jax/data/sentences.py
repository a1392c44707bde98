"""Splits English text into sentences by rules, without a package or a model.

Blocks are packed by sentence and ICT queries are sentences, so a wrong split
costs little; a missing dependency on a fresh machine would cost more.
"""

import re

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


def split_sentences(text: str) -> list[tuple[int, int]]:
  """Finds the sentences of a text.

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
