"""Salient spans: the names, dates and quantities worth masking.

The paper takes entities from a BERT tagger and dates from a regular
expression; neither was released. The default here is rules without any
dependency: dates, numbers with a unit, and capitalised runs that are more
than the start of a sentence. spaCy is the alternative behind extra `ner`.
"""

import bisect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from realm_jax.config import InputError, imported
from realm_jax.data.sentences import split_sentences
from realm_jax.data.wordpieces import char_to_byte

Span = tuple[int, int, str]
Pairs = Sequence[tuple[str, str]]  # text, title of its article
Annotator = Callable[[Pairs], list[list[Span]]]

_SPACY_MODEL = "en_core_web_sm"
_SPACY_BATCH = 64  # texts
_UNUSED = ["parser", "lemmatizer", "tagger", "attribute_ruler"]
_PIECE = 50_000  # characters; spaCy takes a gigabyte for a million

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
  """The annotator a config names.

  Args:
    name: "rules"; "spacy" or "spacy:MODEL" (extra ner); or a function of yours,
      "package.module:function": it takes a list of texts and one of titles, and
      returns of each text a list of (start, end, label) in CHARACTERS.

  Returns:
    A function of a list of (text, title), which has the spans of each, in
    BYTES, in order and not overlapping; many at once is faster.

  Raises:
    InputError: another name, or something is not installed.
  """
  kind, _, rest = name.partition(":")
  if name == "rules":
    return lambda pairs: [annotate(text, title) for text, title in pairs]
  if kind == "spacy":
    return _by_pieces(_spacy_finder(rest or _SPACY_MODEL))
  if rest:
    return _checked(imported(name, "data.annotator"), name)
  raise InputError(
    f'data.annotator="{name}": wanted "rules", "spacy", "spacy:MODEL" or a'
    ' function of yours, "package.module:function"'
  )


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


def _without_overlaps(spans: Iterable[Span]) -> list[Span]:
  """Of spans that overlap keeps the one that was found first."""
  kept: list[Span] = []
  for span in spans:
    at = bisect.bisect(kept, span)
    before = at == 0 or kept[at - 1][1] <= span[0]
    if before and (at == len(kept) or span[1] <= kept[at][0]):
      kept.insert(at, span)
  return kept


def _in_bytes(text: str, spans: list[Span]) -> list[Span]:
  if text.isascii():
    return spans
  at = char_to_byte(text)
  return [(at[start], at[end], label) for start, end, label in spans]


def _by_pieces(find: Callable[[list[str]], list[list[Span]]]) -> Annotator:
  """A finder of spans in characters, given texts of bearable length."""

  def annotate_all(pairs: Pairs) -> list[list[Span]]:
    pieces = [
      (number, start, text[start:end])
      for number, (text, _) in enumerate(pairs)
      for start, end in _pieces(text)
    ]
    spans: list[list[Span]] = [[] for _ in pairs]
    found = find([piece for *_, piece in pieces])
    for (number, start, _), of_piece in zip(pieces, found, strict=True):
      spans[number] += [(a + start, b + start, x) for a, b, x in of_piece]
    return [
      _in_bytes(text, _without_overlaps(of_text))
      for (text, _), of_text in zip(pairs, spans, strict=True)
    ]

  return annotate_all


def _pieces(text: str) -> Iterator[tuple[int, int]]:
  """Cuts a long text, between sentences where there are some."""
  start = 0
  if len(text) > _PIECE:
    for _, end in split_sentences(text):
      while end - start > _PIECE:
        yield start, start + _PIECE
        start += _PIECE
      if end - start > _PIECE // 2:
        yield start, end
        start = end
  if start < len(text):
    yield start, len(text)


def _spacy_finder(model: str) -> Callable[[list[str]], list[list[Span]]]:
  try:
    import spacy

    pipeline = spacy.load(model, exclude=_UNUSED)
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

  def find(texts: list[str]) -> list[list[Span]]:
    return [
      [(e.start_char, e.end_char, e.label_.lower()) for e in parsed.ents]
      for parsed in pipeline.pipe(texts, batch_size=_SPACY_BATCH)
    ]

  return find


def _checked(function: Callable, name: str) -> Annotator:
  """Refuses spans of a user's function that its text does not have."""

  def annotate_all(pairs: Pairs) -> list[list[Span]]:
    texts, titles = [text for text, _ in pairs], [title for _, title in pairs]
    found = function(texts, titles)
    if len(found) != len(texts):
      raise InputError(
        f'data.annotator="{name}": it has spans of {len(found)} texts, and was'
        f" given {len(texts)}"
      )
    return [
      _in_bytes(text, _without_overlaps(_in_text(spans, text, name)))
      for text, spans in zip(texts, found, strict=True)
    ]

  return annotate_all


def _in_text(spans: Iterable, text: str, name: str) -> Iterator[Span]:
  for start, end, label in spans:
    if not 0 <= start < end <= len(text):
      raise InputError(
        f'data.annotator="{name}": the span {start}-{end} of a text with'
        f" {len(text)} characters, {text[:40]!r}"
      )
    yield start, end, label
