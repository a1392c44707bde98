"""The original's own files: corpora of blocks, and annotated texts.

A record of a corpus stays one block, so that row i of a released block_emb is
block i. It becomes an article of its own, with the number of its row as id.
"""

import glob
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from realm_jax.config import InputError
from realm_jax.data.pages import Page
from realm_jax.formats import tfrecord

_BLOCKS, _TITLES = "blocks.tfr", "titles.tfr"


def block_files(folder: str) -> list[pathlib.Path]:
  """ORQA's blocks.tfr and titles.tfr, which are written in step.

  Raises:
    InputError: one of them is missing.
  """
  paths = [pathlib.Path(folder).expanduser() / x for x in (_BLOCKS, _TITLES)]
  for path in paths:
    if not path.is_file():
      raise InputError(f"{path}: no such file: wanted {_BLOCKS} and {_TITLES}")
  return paths


def read_blocks(folder: str) -> Iterator[Page]:
  """The blocks of ORQA.

  Raises:
    InputError: a broken file, text that is not UTF-8, or one file has more.
  """
  blocks, titles = block_files(folder)
  rows = itertools.zip_longest(
    tfrecord.read_tfrecord(blocks), tfrecord.read_tfrecord(titles)
  )
  for row, (text, title) in enumerate(rows):
    if text is None or title is None:
      shorter = blocks if text is None else titles
      raise InputError(
        f"{shorter}: ends after {row} records, the other doesn't"
      )
    yield _page(row, title, text, f"{blocks}: record {row}")


def record_files(pattern: str) -> list[pathlib.Path]:
  """The files of a REALM corpus (such as docs.tfr-00012-of-00050.gz), sorted.

  Raises:
    InputError: no file has such a name.
  """
  found = sorted(glob.glob(str(pathlib.Path(pattern).expanduser())))
  if not found:
    raise InputError(f"{pattern}: no file of that name")
  return [pathlib.Path(path) for path in found]


def read_records(pattern: str) -> Iterator[Page]:
  """The "title" and "body" of REALM's tf.Examples, in block_emb's order.

  Raises:
    InputError: a broken file, or an example without them.
  """
  row = 0
  for path in record_files(pattern):
    for number, raw in enumerate(tfrecord.read_tfrecord(path)):
      place = f"{path}: record {number}"
      example = tfrecord.parse_example(raw, place)
      title, body = (_one(example, name, place) for name in ("title", "body"))
      yield _page(row, title, body, place)
      row += 1


def read_annotated(pattern: str) -> Iterator[tuple[str, dict[str, Any]]]:
  """REALM's pre-training records as ("file: record", object) pairs.

  The objects are those of tfds' salient_span_wikipedia: "title", "text",
  "spans" and "sentences", with offsets in bytes.

  Raises:
    InputError: a broken file, or an example that is not one of these.
  """
  for path in record_files(pattern):
    for number, raw in enumerate(tfrecord.read_tfrecord(path)):
      place = f"{path}: record {number}"
      example = tfrecord.parse_example(raw, place)
      record: dict[str, Any] = {
        name: _text(_one(example, name, place), place)
        for name in ("title", "text")
      }
      for name in ("sentence", "span"):
        record[f"{name}s"] = _ranges(example, name, place)
      yield place, record


def _ranges(example, name: str, place: str) -> list[dict[str, int]]:
  starts, limits = (
    np.asarray(example.get(f"{name}_byte_{end}", [])).tolist()
    for end in ("start", "limit")
  )
  if len(starts) != len(limits):
    raise InputError(
      f"{place}: {len(starts)} {name}_byte_start, {len(limits)}"
      f" {name}_byte_limit: no pre-training record"
    )
  return [{"start": a, "limit": b} for a, b in zip(starts, limits, strict=True)]


def _one(example, name: str, place: str) -> bytes:
  value = example.get(name)
  if not isinstance(value, list) or len(value) != 1:
    raise InputError(f'{place}: lacks one text "{name}": not of REALM')
  return value[0]


def _page(row: int, title: bytes, text: bytes, place: str) -> Page:
  return Page(str(row), _text(title, place), _text(text, place))


def _text(raw: bytes, place: str) -> str:
  try:
    return raw.decode()
  except UnicodeDecodeError as e:
    raise InputError(f"{place} is not UTF-8 ({e.reason}): convert it") from e
