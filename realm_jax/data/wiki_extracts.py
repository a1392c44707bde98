"""Wikipedia that others have cleaned: WikiExtractor's JSON and tfds' wiki40b."""

import html
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from realm_jax.config import InputError
from realm_jax.data import pages
from realm_jax.data.articles import read_lines, text_field
from realm_jax.data.pages import Page

_MARKS = ("_START_SECTION_", "_START_PARAGRAPH_")
_ARTICLE = "_START_ARTICLE_"


def extracted_files(folder: str) -> list[pathlib.Path]:
  """AA/wiki_00 and so on, in the order of their names.

  Raises:
    InputError: there are none.
  """
  files = sorted(
    f for f in pathlib.Path(folder).expanduser().rglob("wiki_*") if f.is_file()
  )
  if not files:
    raise InputError(
      f"{folder}: no wiki_* file below it: wanted the output of WikiExtractor"
      " with --json"
    )
  return files


def read_extracted(folder: str) -> Iterator[Page]:
  """The pages of WikiExtractor's output, {"id", "title", "text"} a line.

  The title that stands above the text goes, and HTML's entities become
  characters, as the original does it.

  Raises:
    InputError: a line that is not such an object.
  """
  for file in extracted_files(folder):
    for number, line in enumerate(read_lines(file), 1):
      if not line.strip():
        continue
      place = f"{file}:{number}"
      record = _object(line, place)
      article_id, title, text = (
        html.unescape(text_field(record, name, place))
        for name in ("id", "title", "text")
      )
      text = text.removeprefix(f"{title}\n").lstrip("\n")
      yield Page(article_id, title, text, pages.title_reason(title))


def wiki40b_page(place: str, record: dict[str, Any]) -> Page:
  """A record of tfds' wiki40b: its marks tell title and paragraphs apart."""
  title, sections = "", []
  lines = iter(text_field(record, "text", place).split("\n"))
  for line in lines:
    if line == _ARTICLE:
      title = next(lines, "")
    elif line == _MARKS[0]:
      next(lines, "")  # its heading
    elif line and line not in _MARKS:
      sections.append(line.replace("_NEWLINE_", "\n"))
  text = "\n".join(sections)
  page_id = text_field(record, "wikidata_id", place) or place
  return Page(page_id, title, text, pages.title_reason(title))


def _object(line: str, place: str) -> dict[str, Any]:
  try:
    record = json.loads(line)
  except json.JSONDecodeError as e:
    raise InputError(
      f"{place}: not JSON ({e.msg}): run WikiExtractor with --json"
    ) from e
  if not isinstance(record, dict):
    raise InputError(f"{place}: expected an object: run WikiExtractor --json")
  return record
