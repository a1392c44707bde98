"""MediaWiki's XML dumps (pages-articles), read as a stream.

A dump is far larger than memory, so each page is forgotten once it is yielded.
A dump that was cut off is refused by name, at the door where its last bytes
tell; a part of one can be used with data.max_articles, which stops before.
"""

import bz2
import gzip
import os
import pathlib
import re
import zlib
from collections.abc import Iterator
from xml.etree import ElementTree

from realm_jax.config import InputError
from realm_jax.data import pages
from realm_jax.data.pages import Page

# enwiki-….xml, ….xml.bz2, and parts such as ….xml-p1p41242.bz2
_NAME = re.compile(r"\.xml(?:-p\d+p\d+[\w-]*)?(?:\.bz2|\.gz)?$")
_OPENERS = {".bz2": bz2.open, ".gz": gzip.open}
_HIDDEN_KEYS = {"-2", "6", "14"}  # Media, File, Category
_HIDDEN = ("media", "file", "image", "category")
_TAIL = 4096  # bytes; the end tag is in them
_BZ2_END = 0x177245385090  # ends a stream, before its checksum
_BZ2_TAIL = 11  # bytes: 48 bits of mark, 32 of checksum, up to 7 of padding


def is_dump(path: pathlib.Path) -> bool:
  """Whether a file is called as dumps are."""
  return bool(_NAME.search(path.name))


def check_end(path: pathlib.Path) -> None:
  """InputError if the last bytes of a dump show that it was cut off."""
  with open(path, "rb") as f:
    size = f.seek(0, os.SEEK_END)
    f.seek(max(size - _TAIL, 0))
    tail = f.read()
  if path.suffix == ".bz2":
    whole = _ends_bz2(tail)
  else:
    whole = path.suffix == ".gz" or b"</mediawiki>" in tail
  if not whole:
    raise InputError(f"{path}: {_cut_off('')}")


def read_pages(path: pathlib.Path) -> Iterator[Page]:
  """Yields every page of a dump, those to be dropped among them.

  Raises:
    InputError: not a dump, damaged, or cut off.
  """
  number = 0
  try:
    with _OPENERS.get(path.suffix, open)(path, "rb") as f:
      events = iter(ElementTree.iterparse(f, events=("start", "end")))
      _, root = next(events)
      space, end, name = root.tag.rpartition("}")
      if name != "mediawiki":
        raise InputError(f"{path}: not a MediaWiki dump, but <{name[:60]}>")
      space += end
      hidden = _HIDDEN
      for event, element in events:
        if event != "end":
          continue
        if element.tag == f"{space}siteinfo":
          hidden = _hidden_names(element)
        elif element.tag == f"{space}page":
          number += 1
          yield _page(element, hidden)
          root.clear()
  except StopIteration as e:
    raise InputError(f"{path}: {_cut_off('')}") from e
  except EOFError as e:
    raise InputError(f"{path}: {_cut_off(number)}") from e
  except ElementTree.ParseError as e:
    if e.code in (3, 5, 6):  # an element, token or character does not end
      raise InputError(f"{path}: {_cut_off(number)}") from e
    raise InputError(
      f"{path}: damaged after {number} whole pages ({e}): get it again"
    ) from e
  except (OSError, zlib.error) as e:  # also "Invalid data stream"
    raise InputError(
      f"{path}: cannot be read after {number} whole pages ({e}): get it again"
    ) from e


def _page(element: ElementTree.Element, hidden: tuple[str, ...]) -> Page:
  found = {child.tag.rpartition("}")[2]: child for child in element}
  texts = [
    child.text
    for child in found.get("revision", ())
    if child.tag.rpartition("}")[2] == "text"
  ]
  title, page_id = (
    (found[name].text or "") if name in found else ""
    for name in ("title", "id")
  )
  text = (texts[-1] if texts else "") or ""
  namespace = found["ns"].text if "ns" in found else "0"
  if namespace != "0":
    dropped = pages.NAMESPACE
  elif "redirect" in found or text[:20].lower().startswith("#redirect"):
    dropped = pages.REDIRECT
  else:
    dropped = pages.title_reason(title)
  text = "" if dropped else text
  return Page(page_id or title, title, text, dropped, hidden)


def _hidden_names(siteinfo: ElementTree.Element) -> tuple[str, ...]:
  """English names and the wiki's own, such as Datei."""
  own = {
    element.text.lower()
    for element in siteinfo.iter()
    if element.get("key") in _HIDDEN_KEYS and element.text
  }
  return tuple(sorted({*_HIDDEN, *own}))


def _ends_bz2(tail: bytes) -> bool:
  last = int.from_bytes(tail[-_BZ2_TAIL:], "big")
  mask = (1 << 48) - 1
  return any(last >> 32 + padding & mask == _BZ2_END for padding in range(8))


def _cut_off(number: int | str) -> str:
  after = f" after {number} whole pages" if number != "" else ""
  return (
    f"cut off{after}: get the whole dump, or stop before its end with"
    " data.max_articles"
  )
