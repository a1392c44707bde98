"""Salient spans: the names, dates and quantities worth masking.

The paper takes entities from a BERT tagger and dates from a regular
expression; neither was released. The default here is rules without any
dependency: dates, numbers with a unit, and capitalised runs that are more
than the start of a sentence. spaCy is the alternative behind extra `ner`.
"""

import re
from collections.abc import Callable

from realm_jax.config import InputError
from realm_jax.data.sentences import split_sentences
from realm_jax.data.wordpieces import char_to_byte

Span = tuple[int, int, str]
Annotator = Callable[[str, str], list[Span]]

_MONTH = (
  r"(?:January|February|March|April|May|June|July|August|September|October"
  r"|November|December)"
)
_ERA = r"(?:\s(?:BCE?|CE|AD))"
_DATE = re.compile(
  rf"\b(?:\d{{1,2}}(?:st|nd|rd|th)?\s{_MONTH}(?:,?\s\d{{3,4}})?"
  rf"|{_MONTH}\s\d{{1,2}}(?:,\s\d{{3,4}})?\b"
  rf"|{_MONTH}\s\d{{4}}"
  rf"|\d{{1,2}}(?:st|nd|rd|th)[\s-](?:century|millennium){_ERA}?"
  rf"|(?:1\d|20)\d\ds?(?:[–-](?:(?:1\d|20)\d\d|\d\d))?{_ERA}?"
  rf"|\d{{1,4}}{_ERA})\b"
)
_NUMBER = re.compile(
  r"\b\d[\d,]*(?:\.\d+)?(?:\s(?:million|billion|trillion|percent|per cent"
  r"|km2?|kilomet(?:re|er)s|met(?:re|er)s|miles|feet|kg|tonnes|acres|hectares"
  r"|people|inhabitants|species|years|days|hours|languages|countries)\b|%)"
)
_CAPITALISED = r"[^\W\d_a-zß-öø-ÿ][\w'’.-]*\w|[^\W\d_a-zß-öø-ÿ]\.?"
_RUN = re.compile(
  rf"(?<![\w'’-])(?:{_CAPITALISED})"
  rf"(?:\s(?:(?:of|the|de|la|du|von|van|der|den|da|di|del|al|ibn|bin|y)\s)"
  rf"{{0,2}}(?:{_CAPITALISED}))*"
)
# Words that start sentences or stand capitalised without naming anything.
_COMMON = frozenset(
  "a an and another although after all also as at because before both but by"
  " during each early for from following he her here his how however i if in"
  " it its later like many modern more most much no not of on one only or"
  " other our over several she since so some such than that the their them"
  " then there these they this those though through thus to today together"
  " two under unlike until we what when where whether which while who with"
  " within without you your three four five first second third historically"
  " originally traditionally generally usually often sometimes according".split()
)


def annotate(text: str, title: str = "") -> list[Span]:
  """Finds the salient spans of a text by rules.

  Args:
    text: one or more sentences.
    title: the article's; its words are names wherever they stand.

  Returns:
    (start, end, label) in BYTES of the UTF-8 text, in order, not overlapping;
    label is "date", "number" or "entity".
  """
  spans: list[Span] = []
  for pattern, label in ((_DATE, "date"), (_NUMBER, "number")):
    spans += [(*m.span(), label) for m in pattern.finditer(text)]
  spans += [(*span, "entity") for span in _names(text, title)]
  return _in_bytes(text, _without_overlaps(spans))


def make_annotator(name: str) -> Annotator:
  """The annotator a config names: "rules" or "spacy".

  Raises:
    InputError: another name, or spaCy or its model is not installed.
  """
  if name == "rules":
    return annotate
  if name == "spacy":
    return _make_spacy_annotator()
  raise InputError(f'data.annotator="{name}": wanted "rules" or "spacy"')


def _names(text: str, title: str) -> list[tuple[int, int]]:
  sentence_starts = {start for start, _ in split_sentences(text)}
  runs = [m.span() for m in _RUN.finditer(text)]
  inside = {
    word
    for start, end in runs
    if start not in sentence_starts
    for word in text[start:end].split()
  }
  known = inside | set(re.findall(r"[\w'’-]+", title))
  names = []
  for run in runs:
    start, end = _without_common_words(text, *run)
    first = text[start:end].partition(" ")[0]
    opens = start in sentence_starts and first == text[start:end]
    if first and (not opens or first in known):
      names.append((start, end))
  return names


def _without_common_words(text: str, start: int, end: int) -> tuple[int, int]:
  while start < end:
    first = re.match(r"[\w'’.-]+\s?", text[start:end])[0]
    if first.strip().lower() not in _COMMON:
      break
    start += len(first)
  while text[start:end].endswith((".", "'s", "’s")):
    end -= 1 if text[end - 1] == "." else 2
  return start, end


def _without_overlaps(spans: list[Span]) -> list[Span]:
  """Of spans that overlap keeps the one that was found first."""
  kept: list[Span] = []
  for span in spans:
    if all(span[1] <= k[0] or span[0] >= k[1] for k in kept):
      kept.append(span)
  return sorted(kept)


def _in_bytes(text: str, spans: list[Span]) -> list[Span]:
  if text.isascii():
    return spans
  at = char_to_byte(text)
  return [(at[start], at[end], label) for start, end, label in spans]


def _make_spacy_annotator(model: str = "en_core_web_sm") -> Annotator:
  try:
    import spacy

    pipeline = spacy.load(model, disable=["parser", "lemmatizer"])
  except ImportError as e:
    raise InputError(
      'data.annotator="spacy": spaCy is not installed; pip install'
      ' "realm-jax[ner]", or use data.annotator="rules"'
    ) from e
  except OSError as e:
    raise InputError(
      f'data.annotator="spacy": the model {model} is not installed; python -m'
      f' spacy download {model}, or use data.annotator="rules"'
    ) from e

  def annotate_with_spacy(text: str, title: str = "") -> list[Span]:
    del title  # the tagger sees names by itself
    spans = [
      (e.start_char, e.end_char, e.label_.lower()) for e in pipeline(text).ents
    ]
    return _in_bytes(text, spans)

  return annotate_with_spacy
