"""Facts of two books: what answers a question, what has changed, who is asked."""

import io
import json
import tarfile

import pytest

from realm_jax.data import (
  articles,
  country_facts,
  factbook,
  old_factbook,
  qa,
  sources,
  swap,
)
from realm_jax.data.articles import Article


def country(name, chief="", head="", **fields):
  """A country as the books have it; fields are labels of the first level."""
  leaders = {"chief of state": chief, "head of government": head}
  return {
    "Government": {
      "Country name": {"conventional short form": {"text": name}},
      "Executive branch": {k: {"text": v} for k, v in leaders.items()},
      "Capital": {"name": {"text": fields.pop("capital", "")}},
      **{label: {"text": value} for label, value in fields.items()},
    }
  }


def facts(*args, **fields):
  found = country_facts.facts([("xx", country(*args, **fields))])
  return {fact.field.name: fact for fact in found}


def test_the_old_book_comes_from_its_tarball(tmp_path, monkeypatch):
  path = tmp_path / "old.tgz"
  with tarfile.open(path, "w:gz") as archive:
    for name in ("world/zz.json", "asia/aa.json", "categories.json", "a.md"):
      data = json.dumps(country(name)).encode()
      info = tarfile.TarInfo(f"package/{name}")
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))
  monkeypatch.setattr(sources, "fetch", lambda package, cache: path)
  found = [(a.id, a.title) for a in old_factbook.articles()]
  assert found == [
    ("factbook/aa", "asia/aa.json"),
    ("factbook/zz", "world/zz.json"),
  ]


@pytest.mark.parametrize(
  "value, answers",
  [
    (
      "President Barack H. OBAMA (since 2009); Vice President Joe BIDEN",
      ["President Barack H. OBAMA", "Barack H. OBAMA"],
    ),
    ("S&eacute;bastien LECORNU (since 2025)", ["Sébastien LECORNU"]),
    ("King and Prime Minister SALMAN bin Abd", None),
    ("King TUPOU VI, also spelled TUBOU (since 2012)", None),
    (
      "President of the Swiss Confederation Guy PARMELIN (since 2026)",
      ["President of the Swiss Confederation Guy PARMELIN"],
    ),
    (
      "President XI Jinping (since 2013)",
      ["President XI Jinping", "XI Jinping"],
    ),
    ("President (vacant)", []),
  ],
)
def test_a_leader_is_right_with_the_office_and_without(value, answers):
  if answers is None:
    office, _, name = value.partition(",")[0].rpartition(" Minister ")
    whole = value.partition(", ")[0]
    name = name if office else whole.removeprefix("King ")
    answers = [whole, name]
  fact = facts("X", value).get("chief of state")
  assert (fact.answers if fact else []) == answers


def test_the_end_of_an_answer_depends_on_the_field():
  found = facts(
    "X (the Y)",
    capital="Z; note - moved",
    **{
      "Map references": "Political Map of the World, Africa",
      "Exchange rates": "euros (EUR) per US dollar - ++ 0.7",
      "Elevation extremes": "none",
      "Languages": "French 88%, Breton",
    },
  )
  assert {name: fact.answers for name, fact in found.items()} == {
    "capital": ["Z"],
    "continent": ["Political Map of the World"],
    "currency": ["euros"],
    "first language": ["French"],
  }
  assert country_facts.article(found["capital"]) == Article(
    "factbook/xx/capital", "capital of X", "capital of X: Z; note - moved"
  )
  [cloze] = country_facts.cloze(found["capital"])
  assert cloze == Article(
    "factbook/xx/capital/0",
    "capital of X",
    "what is the capital of X?\ncapital of X: Z; note - moved",
  )
  [question] = country_facts.questions(found["capital"])
  assert question == qa.Question(
    "factbook/xx/capital/0",
    "what is the capital of X?",
    ["Z"],
    "factbook/xx/capital",
  )


def test_both_labels_of_a_field_make_one_fact():
  old = {
    "Elevation extremes": {"highest point": {"text": "Mont Blanc 4,807 m"}}
  }
  new = {"Elevation": {"highest point": {"text": "Mont Blanc 4,810"}}}
  for land in (old, new):
    both = country("X") | {"Geography": land}
    [fact] = country_facts.facts([("xx", both)])
    assert (fact.id, fact.answers) == (
      "factbook/xx/highest point",
      ["Mont Blanc"],
    )


@pytest.mark.parametrize(
  "old, new, group",
  [
    ("President Ada AAA", "President Bob BBB", "changed leaders"),
    ("President José PÉREZ", "King Jose PEREZ II", "unchanged leaders"),
    ("Prime Minister HUN SEN", "Prime Minister HUN MANET", ""),
  ],
)
def test_leaders_are_compared_by_surname(old, new, group):
  pair = (facts("X", leader)["chief of state"] for leader in (old, new))
  assert swap._group(*pair) == group


@pytest.fixture
def books(monkeypatch):
  """Two books of 24 countries: new chiefs, the same heads, one capital moved."""
  names = [f"Land{chr(97 + i)}" for i in range(24)]
  old, new = (
    {
      f"c{i:02}": country(
        "Renamed" if (i, year) == (0, "NEW") else name,
        f"President A {year}{name.upper()} (since 1)",
        f"Premier B {name.upper()} (since 1)",
        capital=f"{name} City" if (i, year) != (1, "NEW") else "Elsewhere",
      )
      for i, name in enumerate(names)
    }
    for year in ("OLD", "NEW")
  )
  new["zz"] = country("Only new", "President C CCC")
  for book, of_book in ((old_factbook, old), (factbook, new)):
    monkeypatch.setattr(
      book, "countries", lambda cache, of_book=of_book: of_book.items()
    )


def test_both_books_are_asked_about_what_can_be_compared(books, tmp_path):
  swap.write(tmp_path / "facts")
  folder = tmp_path / "facts"
  corpora = [
    {a.id: a.text for a in articles.read_articles(folder / f"{book}.jsonl")}
    for book in swap.BOOKS
  ]
  assert corpora[0].keys() == corpora[1].keys()
  assert len(corpora[0]) == 24 * 3
  trained = {q.article_id for q in qa.read_qa(folder / "train.jsonl")}
  chosen = {q.article_id for q in qa.read_qa(folder / "dev.jsonl")}
  asked = swap.read_asked(folder)
  assert not trained & chosen
  cloze = list(articles.read_articles(folder / "cloze.jsonl"))
  beside = {a.id.rpartition("/")[0] for a in cloze if "?\n" in a.text}
  assert beside == trained  # no question of another country
  assert {a.id for a in cloze if "\n" not in a.text} == (
    corpora[0].keys() - trained
  )
  seen = {"test": 0, "train": 0}
  for group, split, by_book in asked:
    old, new = (by_book[book] for book in swap.BOOKS)
    assert old.question == new.question
    assert (old.answers != new.answers) == (group == "changed leaders")
    assert (old.article_id in trained) == (split == "train")
    assert old.article_id not in chosen
    seen[split] += 1
  assert min(seen.values()) > 6
  asked_of = {by_book["old"].article_id for _, _, by_book in asked}
  assert not [i for i in asked_of if i.startswith("factbook/c00/")]  # renamed
  assert "factbook/c01/capital" not in asked_of  # neither is it unchanged


def test_a_few_countries_will_do(books, tmp_path):
  swap.write(tmp_path, max_countries=7)
  ids = {a.id for a in articles.read_articles(tmp_path / "new.jsonl")}
  assert {i.split("/")[1] for i in ids} == {f"c{n:02}" for n in range(7)}
