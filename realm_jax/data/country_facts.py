"""Facts of the World Factbook, one a block, and questions that ask for them.

The two books name a field alike or nearly so; here it has one name, so that a
fact that has not changed has the same text in both.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from realm_jax.data import factbook
from realm_jax.data.articles import Article
from realm_jax.data.qa import Question


class Field(NamedTuple):
  """What is known of a country.

  Attributes:
    name: ours.
    labels: of the books' lines.
    questions: "{}" is the country; the first is asked when facts are tested.
    end: where the answer ends in a value, a regular expression.
  """

  name: str
  labels: tuple[str, ...]
  questions: tuple[str, ...]
  end: str = r" \(|;"


class Fact(NamedTuple):
  """A field of a country.

  Attributes:
    id: "factbook/CODE/FIELD", the same in both books.
    country: its name.
    field: of FIELDS.
    value: the book's.
    answers: what of the value answers the question; any of them is right.
  """

  id: str
  country: str
  field: Field
  value: str
  answers: list[str]


_WORDS = 10  # of a value; the answer stands at its beginning
_OFFICE = frozenset(
  "acting interim transitional transition honorary crown president vice prime"
  " minister premier chancellor king queen prince princess emperor sultan amir"
  " grand duke captain chief pope taoiseach and general gen lieutenant lt maj"
  " major brig col colonel adm admiral sir dr dame mr ms sheikh shaykh sayyid"
  " governor commander first secretary mayor executive".split()
)
_SURNAME = re.compile(r"\b[^\W\d_a-zß-öø-ÿ][^\W\d_a-zß-öø-ÿ'’-]+\b")
_NUMERAL = re.compile(r"[IVX]+")


def _leader(title: str, *questions: str) -> Field:
  end = r" \(|;|, (?:also|represented|son |who )"
  return Field(title, (f"Executive branch, {title}",), questions, end)


def _field(name: str, *labels: str, end: str = r" \(|;") -> Field:
  question = f"what is the {name} of {{}}?"
  return Field(name, labels, (question,), end)


LEADERS = (
  _leader(
    "chief of state",
    "who is the chief of state of {}?",
    "who is the head of state of {}?",
  ),
  _leader(
    "head of government",
    "who is the head of government of {}?",
    "who leads the government of {}?",
  ),
)
FIELDS = (
  *LEADERS,
  _field("capital", "Capital, name"),
  _field("continent", "Map references", end=r"[;,] | \("),
  _field("location", "Location", end=r"[;,(]"),
  _field(
    "currency", "Exchange rates", "Exchange rates, Currency", end=r" per US| \("
  ),
  _field("nationality", "Nationality, adjective"),
  _field("official name", "Country name, conventional long form"),
  _field("local name", "Country name, local short form", end=r"[;,/(]"),
  _field("internet code", "Internet country code"),
  _field("time zone", "Capital, time difference"),
  _field(
    "highest point",
    "Elevation extremes, highest point",
    "Elevation, highest point",
    end=r" -?\d| \(|;",
  ),
  _field(
    "lowest point",
    "Elevation extremes, lowest point",
    "Elevation, lowest point",
    end=r" -?\d| \(|;",
  ),
  _field("coordinates", "Geographic coordinates"),
  _field("area", "Area, total"),
  _field("coastline", "Coastline"),
  _field("land border", "Land boundaries, total"),
  _field("legal system", "Legal system", end=r"[;,]| \("),
  _field("form of government", "Government type", end=r"[;,]| \("),
  _field("independence day", "Independence"),
  _field("national holiday", "National holiday", end=r"[;,]| \("),
  _field("national anthem", "National anthem, name", end=r" \(|;|/"),
  _field("voting age", "Suffrage"),
  _field("national symbol", "National symbol(s)", end=r"[;,]| \("),
  _field("median age", "Median age, total"),
  _field("fiscal year", "Fiscal year"),
  _field("first language", "Languages", end=r"[;,]| \(| \d"),
  _field("first religion", "Religions", end=r"[;,]| \(| \d"),
  _field("main export partner", "Exports - partners", end=r"[;,]| \(| \d"),
  _field("main import partner", "Imports - partners", end=r"[;,]| \(| \d"),
)


def facts(countries: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Fact]:
  """The facts of countries, (code, sections) each, in their order.

  A value without an answer, such as "none", is no fact.
  """
  for code, country in countries:
    name = re.split(r" \(|[,;] ", factbook.country_name(country))[0]
    values = dict(reversed(list(factbook.lines(country))))  # first of a label
    for field in FIELDS:
      label = next((x for x in field.labels if x in values), "")
      if name and (answers := _answers(field, values.get(label, ""))):
        id_ = f"factbook/{code}/{field.name}"
        yield Fact(id_, name, field, values[label], answers)


def article(fact: Fact) -> Article:
  """A fact as an article of one line, short enough for one block.

  The title says which fact of which country it is, and so does the line, since
  the reader sees no title.
  """
  title = f"{fact.field.name} of {fact.country}"
  value = " ".join(fact.value.split()[:_WORDS])
  return Article(fact.id, title, f"{title}: {value}")


def cloze(fact: Fact) -> list[Article]:
  """Articles of a question and its fact, for the inverse cloze task.

  The question is the sentence that was taken out of the fact's block.
  """
  line = article(fact)
  return [
    line._replace(id=q.id, text=f"{q.question}\n{line.text}")
    for q in questions(fact)
  ]


def questions(fact: Fact) -> list[Question]:
  """The ways to ask for a fact, the first of them first."""
  return [
    Question(
      f"{fact.id}/{number}", text.format(fact.country), fact.answers, fact.id
    )
    for number, text in enumerate(fact.field.questions)
  ]


def surnames(answer: str) -> frozenset[str]:
  """The words that the books write in capitals, without accents: surnames."""
  text = unicodedata.normalize("NFD", answer)
  text = "".join(c for c in text if not unicodedata.combining(c))
  words = frozenset(_SURNAME.findall(text))
  return frozenset(w for w in words if not _NUMERAL.fullmatch(w)) or words


def _answers(field: Field, value: str) -> list[str]:
  answer = re.split(field.end, value)[0].strip(' ,"')
  if not re.search(r"\w", answer) or answer.lower() in ("none", "na", "note"):
    return []
  if field not in LEADERS:
    return [answer]
  if not surnames(answer):  # an office that nobody holds, or a broken line
    return []
  name = _without_office(answer)
  return [answer] if name == answer else [answer, name]


def _without_office(answer: str) -> str:
  """A name without "President"; as it is where an office goes on with "of"."""
  words = answer.split()
  first = 0
  while first < len(words) and words[first].lower().strip(".,") in _OFFICE:
    first += 1
  rest = words[first:]
  is_name = rest and rest[0] not in ("of", "for") and not rest[0].endswith(",")
  return " ".join(rest) if is_name else answer
