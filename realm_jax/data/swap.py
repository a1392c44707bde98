"""What the knowledge swap trains on and asks: two books of facts, questions.

Countries are split by a hash of their code: the questions of half of them are
trained on, with the old book's answers; of a sixth they are for choosing a
recipe, of a third nothing but the blocks is ever seen. The retriever learns its inverse
cloze task from the questions of that half beside their facts, and from the
others' facts alone, so that it knows every country by its name.
"""

import hashlib
import itertools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from realm_jax.data import articles, country_facts, factbook, old_factbook, qa
from realm_jax.data.country_facts import Fact

BOOKS = ("old", "new")
CONTROLS = (  # fields that seldom change
  "capital",
  "continent",
  "currency",
  "nationality",
  "official name",
)
GROUPS = ("changed leaders", "unchanged leaders", "unchanged facts")
SPLITS = {"test": "held-out countries", "train": "countries trained on"}


class Asked(NamedTuple):
  """A question with what either book answers.

  Attributes:
    group: of GROUPS.
    split: of SPLITS.
    by_book: {book of BOOKS: the question with that book's answers}.
  """

  group: str
  split: str
  by_book: dict[str, qa.Question]


def write(
  directory: pathlib.Path, max_countries: int = 0, cache: str = ""
) -> None:
  """Writes BOOK.jsonl, cloze.jsonl, SPLIT.jsonl and asked_BOOK.jsonl.

  Args:
    directory: where to.
    max_countries: so many, in the order of their codes; 0: all.
    cache: see sources.fetch.
  """
  directory.mkdir(parents=True, exist_ok=True)
  old, new = (
    {fact.id: fact for fact in country_facts.facts(countries)}
    for countries in _countries(max_countries, cache)
  )
  for book, of_book in zip(BOOKS, (old, new), strict=True):
    articles.write_articles(
      directory / f"{book}.jsonl",
      map(country_facts.article, of_book.values()),
    )
  articles.write_articles(
    directory / "cloze.jsonl",
    itertools.chain.from_iterable(map(_cloze, old.values())),
  )
  for split in ("train", "dev"):
    of_split = [f for f in old.values() if split_of(f) == split]
    qa.write_qa(
      directory / f"{split}.jsonl",
      [q for fact in of_split for q in country_facts.questions(fact)],
    )
  pairs = [_asked(old[i], new[i]) for i in old.keys() & new.keys()]
  for book in BOOKS:
    asked = sorted(pair.by_book[book] for pair in pairs if pair)
    qa.write_qa(directory / f"asked_{book}.jsonl", asked)


def read_asked(directory: pathlib.Path) -> list[Asked]:
  """The questions that `write` wrote to be asked of both books."""
  old, new = (qa.read_qa(directory / f"asked_{book}.jsonl") for book in BOOKS)
  return [
    Asked(*a.id.split("/")[:2], dict(zip(BOOKS, (a, b), strict=True)))
    for a, b in zip(old, new, strict=True)
  ]


def split_of(fact: Fact) -> str:
  """train, dev or test, by the hash of a country's code: 3 : 1 : 2."""
  code = fact.id.split("/")[1]
  bucket = int(hashlib.sha256(code.encode()).hexdigest(), 16) % 6
  return ("test", "test", "dev", "train", "train", "train")[bucket]


def _countries(max_countries: int, cache: str) -> Iterator[list]:
  """The countries that are in both books, by their codes, of either."""
  old, new = (dict(book.countries(cache)) for book in (old_factbook, factbook))
  codes = sorted(old.keys() & new.keys())[: max_countries or None]
  for book in (old, new):
    yield [(code, book[code]) for code in codes]


def _cloze(fact: Fact) -> list[articles.Article]:
  if split_of(fact) == "train":
    return country_facts.cloze(fact)
  return [country_facts.article(fact)]


def _asked(old: Fact, new: Fact) -> Asked | None:
  """A pair to be asked; None where it can't be told what has changed."""
  split, group = split_of(old), _group(old, new)
  if not group or split not in SPLITS or old.country != new.country:
    return None
  _, code, field = old.id.split("/")
  by_book = {
    book: country_facts.questions(fact)[0]._replace(
      id=f"{group}/{split}/{code}/{field}"
    )
    for book, fact in zip(BOOKS, (old, new), strict=True)
  }
  return Asked(group, split, by_book)


def _group(old: Fact, new: Fact) -> str:
  """Leaders are compared by their surnames, which spelling seldom changes."""
  if old.field in country_facts.LEADERS:
    a, b = (country_facts.surnames(f.answers[0]) for f in (old, new))
    if a.isdisjoint(b):
      return "changed leaders"
    return "unchanged leaders" if a == b else ""
  same = old.answers[0].lower() == new.answers[0].lower()
  is_control = old.field.name in CONTROLS
  return "unchanged facts" if same and is_control else ""
