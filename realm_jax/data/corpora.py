"""What the names of sources in a config stand for.

"leads", "factbook", "old_factbook" and "sample_dump" are packages; a name with
a prefix is a data set or somebody's output; anything else is a file or a
folder: MediaWiki dumps by their name, JSONL else. Several stand with commas
between them.

A source is read in parts, each from its beginning to its end; what costs time
(markup) is left to `make_article`, which needs no more than one page.
"""

import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from realm_jax import files
from realm_jax.data import (
  factbook,
  old_factbook,
  original_corpus,
  pages,
  sources,
  tfds_source,
  wiki_dump,
  wiki_extracts,
  wiki_text,
)
from realm_jax.data.articles import (
  Article,
  check_articles,
  jsonl_files,
  read_articles,
  read_jsonl,
)
from realm_jax.data.pages import Page

# Prefix -> the files it stands for, and their reader.
_PREFIXES = {
  "wikiextractor": (
    wiki_extracts.extracted_files,
    wiki_extracts.read_extracted,
  ),
  "orqa": (original_corpus.block_files, original_corpus.read_blocks),
  "realm": (original_corpus.record_files, original_corpus.read_records),
}
# Texts that preparation makes itself, and the package they come from.
_MADE = {"sentences": None, "lead_lines": sources.LEADS}
_PACKAGES = {
  "leads": sources.LEADS,
  "factbook": factbook.PACKAGE,
  "old_factbook": old_factbook.PACKAGE,
  "sample_dump": sources.SAMPLE_DUMP,
} | _MADE


class Part(NamedTuple):
  """What one reader reads.

  Attributes:
    source: its name in the config.
    kind: a key of _READERS.
    where: file, folder, pattern, data set or cache.
  """

  source: str
  kind: str
  where: str

  @property
  def whole(self) -> bool:
    """Whether a page is one block as it is."""
    return self.kind in ("orqa", "realm")


def parts(names: str, cache: str = "") -> list[Part]:
  """The parts of all sources, one source after the other.

  Raises:
    InputError: a file or folder that is not there, or was cut off.
  """
  return [p for name in split_names(names) for p in _parts_of(name, cache)]


def read(part: Part) -> Iterator[Page]:
  """The pages of a part, in order; InputError names what is wrong with one."""
  return _READERS[part.kind](part.where)


def make_article(part: Part, page: Page) -> tuple[Article | None, str]:
  """The article of a page.

  Returns:
    (article, "") or (None, why it is dropped); an article of which lines of
    broken markup were dropped has the reason pages.BROKEN beside it.
  """
  text, said = page.text, page.dropped
  if not said and part.kind == "dump":
    text, said = _from_markup(page)
  if said and said != pages.BROKEN:
    return None, said
  if not part.whole and not text.strip():
    return None, pages.EMPTY
  return Article(page.id, page.title, text), said


def articles(names: str, cache: str = "") -> Iterator[Article]:
  """The articles of all sources, without those that are dropped."""
  for part in parts(names, cache):
    for page in read(part):
      article, _ = make_article(part, page)
      if article:
        yield article


def records(name: str) -> Iterable[tuple[str, dict[str, Any]]]:
  """("file:line", object) pairs of a JSONL source or a data set."""
  kind, _, where = name.partition(":")
  if kind == "realm":
    return original_corpus.read_annotated(where)
  if name.startswith(tfds_source.PREFIX):
    return tfds_source.read(name)
  return read_jsonl(name)


def check_ends(names: str) -> None:
  """InputError for a dump whose last bytes show that it was cut off."""
  for name in split_names(names):
    for path in _dump_files(name):
      wiki_dump.check_end(path)


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
      for file in _files_of(name):
        found[str(file)] = files.sha256_file(file)
  return found


def split_names(names: str) -> list[str]:
  """The names of a list with commas."""
  return [name.strip() for name in names.split(",") if name.strip()]


def _parts_of(name: str, cache: str) -> list[Part]:
  if name in ("leads", "factbook", "old_factbook"):
    return [Part(name, name, cache)]
  if name == "sample_dump":
    return [Part(name, "dump", str(sources.sample_dump(cache)))]
  if name.startswith(tfds_source.PREFIX):
    return [Part(name, "tfds", name)]
  kind, _, where = name.partition(":")
  if kind in _PREFIXES:
    return [Part(name, kind, where)]
  if dumps := _dump_files(name):
    return [Part(name, "dump", str(path)) for path in dumps]
  return [Part(name, "jsonl", name)]


def _files_of(name: str) -> list[pathlib.Path]:
  kind, _, where = name.partition(":")
  if kind in _PREFIXES:
    return _PREFIXES[kind][0](where)
  return _dump_files(name) or jsonl_files(name)


def _dump_files(name: str) -> list[pathlib.Path]:
  """The dumps a name stands for: itself, or those of the folder."""
  path = pathlib.Path(name).expanduser()
  inside = path.iterdir() if path.is_dir() else [path]
  return sorted(f for f in inside if wiki_dump.is_dump(f) and f.is_file())


def _from_markup(page: Page) -> tuple[str, str]:
  if wiki_text.is_disambiguation(page.text):
    return "", pages.DISAMBIGUATION
  try:
    text, num_broken = wiki_text.plain_text(page.text, page.hidden)
  except ValueError as e:
    return "", str(e)
  return text, pages.BROKEN if num_broken else ""


def _read_tfds(name: str) -> Iterator[Page]:
  """A data set's records have no ids of their own, but wiki40b's."""
  for place, record in tfds_source.read(name):
    if "wikidata_id" in record:
      yield wiki_extracts.wiki40b_page(place, record)
      continue
    [article] = check_articles([(place, {"id": place} | record)])
    yield Page(*article, dropped=_tfds_reason(name, article.title))


def _tfds_reason(name: str, title: str) -> str:
  is_wiki = name.startswith(f"{tfds_source.PREFIX}wiki")
  return pages.title_reason(title) if is_wiki else ""


def _pages(articles: Iterable[Article]) -> Iterator[Page]:
  return (Page(*article) for article in articles)


_READERS: dict[str, Callable[[str], Iterator[Page]]] = {
  "leads": lambda cache: _pages(x.article for x in sources.leads(cache)),
  "factbook": lambda cache: _pages(factbook.articles(cache)),
  "old_factbook": lambda cache: _pages(old_factbook.articles(cache)),
  "dump": lambda path: wiki_dump.read_pages(pathlib.Path(path)),
  "jsonl": lambda path: _pages(read_articles(path)),
  "tfds": _read_tfds,
  **{kind: reader for kind, (_, reader) in _PREFIXES.items()},
}
