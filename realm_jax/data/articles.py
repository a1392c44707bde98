"""Articles and the JSONL files that a user brings, checked line by line.

Whatever is wrong with a line is said with its file, its number and what was
expected there; nothing is skipped in silence.
"""

import gzip
import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from realm_jax import files
from realm_jax.config import InputError


class Article(NamedTuple):
  """A page of the knowledge corpus; blocks are cut from its text."""

  id: str
  title: str
  text: str


def read_articles(path: str | os.PathLike) -> Iterator[Article]:
  """Reads {"id", "title", "text"} lines of a JSONL file or a folder of them.

  Raises:
    InputError: no such file, a line that is not an article, an id used twice.
  """
  return check_articles(read_jsonl(path))


def write_articles(
  path: str | os.PathLike, articles: Iterable[Article]
) -> None:
  """Publishes articles as JSONL."""
  with (
    files.atomic_publish(path) as tmp,
    open(tmp, "w", encoding="utf-8") as out,
  ):
    for article in articles:
      out.write(json.dumps(article._asdict(), ensure_ascii=False) + "\n")


def check_articles(
  records: Iterable[tuple[str, dict[str, Any]]],
) -> Iterator[Article]:
  """Makes articles of ("file:line", object) pairs; see read_articles."""
  seen: dict[str, str] = {}
  for place, record in records:
    article = Article(
      *(text_field(record, name, place) for name in Article._fields)
    )
    if article.id in seen:
      raise InputError(
        f'{place}: the id "{article.id}" was used at {seen[article.id]}:'
        " give every article its own"
      )
    seen[article.id] = place
    yield article


def read_jsonl(
  path: str | os.PathLike,
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields ("file:line", object) of a .jsonl(.gz) file or a folder of them.

  The files of a folder come in the order of their names, empty lines are
  passed over.

  Raises:
    InputError: a missing file or folder, bad gzip or UTF-8, a line that is not
      a JSON object.
  """
  for file in jsonl_files(path):
    for number, line in enumerate(read_lines(file), 1):
      if not line.strip():
        continue
      place = f"{file}:{number}"
      try:
        record = json.loads(line)
      except json.JSONDecodeError as e:
        raise InputError(
          f"{place}: not JSON ({e.msg} at column {e.colno}); expected one"
          " object a line"
        ) from e
      if not isinstance(record, dict):
        raise InputError(
          f"{place}: expected a JSON object, got {_brief(record)}"
        )
      yield place, record


def jsonl_files(path: str | os.PathLike) -> list[pathlib.Path]:
  """The JSONL files a path stands for: itself, or those of the folder."""
  path = pathlib.Path(path).expanduser()
  if path.is_file():
    return [path]
  if not path.exists():
    raise InputError(f"{path}: no such file or folder")
  files = sorted(
    f for f in path.iterdir() if f.name.endswith((".jsonl", ".jsonl.gz"))
  )
  if not files:
    raise InputError(f"{path}: a folder without .jsonl or .jsonl.gz files")
  return files


def text_field(record: dict[str, Any], name: str, place: str) -> str:
  """record[name], which must be a text; InputError says where it is not."""
  if name not in record:
    raise InputError(
      f'{place}: lacks "{name}"; found {", ".join(record) or "no fields"}'
    )
  if not isinstance(record[name], str):
    raise InputError(
      f'{place}: "{name}" must be a text, got {_brief(record[name])}'
    )
  try:
    record[name].encode()
  except UnicodeEncodeError as e:
    raise InputError(
      f'{place}: "{name}" has half a character at {e.start}'
      f" ({record[name][e.start]!a}): a surrogate without its other half"
    ) from e
  return record[name]


def read_lines(file: pathlib.Path) -> Iterator[str]:
  """The lines of a text file, gzipped or not; InputError if it is broken."""
  opener = gzip.open if file.suffix == ".gz" else open
  try:
    with opener(file, "rt", encoding="utf-8") as lines:
      yield from lines
  except UnicodeDecodeError as e:
    raise InputError(f"{file}: not UTF-8 ({e.reason}); convert it") from e
  except (gzip.BadGzipFile, EOFError, zlib.error) as e:
    raise InputError(f"{file}: broken gzip ({e}); make it anew") from e


def _brief(value: Any) -> str:
  text = json.dumps(value, ensure_ascii=False)
  return text if len(text) <= 40 else text[:39] + "…"
