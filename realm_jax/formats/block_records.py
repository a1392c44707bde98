"""Block records: the texts of the blocks, in the order of block_emb's rows.

The reference keeps them in block_records.npy, the original in blocks.tfr; a
user may bring JSONL.
"""

import gzip
import os
import pathlib
import zlib
from collections.abc import Collection, Iterator

import numpy as np

from realm_jax.config import InputError
from realm_jax.formats import npy_objects, strict_json, tfrecord

_MAX_LINE = 1 << 28  # bytes; a longer one is no block
_TFRECORD = (".tfr", ".tfrecord", ".tfrecords")


def read_block_records(path: str | os.PathLike) -> np.ndarray:
  """The records of a file, [N] objects of type bytes, each UTF-8.

  Args:
    path: by the end of its name:
      .npy: bytes or str, of fixed width or as objects (block_records.npy);
      .jsonl, .jsonl.gz: a line is a text, or an object with the text in
        "text" (its other fields are left out, empty lines passed over);
      .tfr, .tfrecord, .tfrecords, each also with .gz: a record is a text.

  Raises:
    InputError: another name, a broken file, a record that is not UTF-8, none
      at all. Nothing that the file holds is run.
  """
  path = pathlib.Path(path)
  name = path.name.removesuffix(".gz")
  if path.suffix == ".npy":
    texts = npy_objects.read_texts(path)
  elif name.endswith(".jsonl"):
    texts = _read_jsonl(path)
  elif name.endswith(_TFRECORD):
    texts = tfrecord.read_tfrecord(path)
  else:
    raise InputError(
      f"{path}: block records are .npy, .jsonl(.gz) or {_TFRECORD[0]}(.gz):"
      " rename or convert the file"
    )
  records = [_utf8(text, i, path) for i, text in enumerate(texts)]
  if not records:
    raise InputError(f"{path}: no records in it")
  result = np.empty(len(records), object)
  result[:] = records
  return result


def write_block_records(
  path: str | os.PathLike, records: Collection[bytes]
) -> None:
  """Publishes block_records.npy for the reference's RealmRetriever.

  Raises:
    InputError: no space left on the disk.
  """
  npy_objects.write_bytes(path, records)


def _utf8(text: bytes | str, index: int, path: pathlib.Path) -> bytes:
  try:
    if isinstance(text, str):
      return text.encode("utf-8")
    text.decode("utf-8")
    return text
  except UnicodeError as e:
    raise InputError(
      f"{path}: record {index} is not UTF-8 ({e.reason}): convert it"
    ) from e


def _read_jsonl(path: pathlib.Path) -> Iterator[str]:
  for number, line in enumerate(_read_lines(path), 1):
    if not line.strip():
      continue
    value = strict_json.parse_json(line, f"{path}:{number}")
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
      raise InputError(
        f'{path}:{number}: wanted a text, or an object with a text in "text"'
      )
    yield text


def _read_lines(path: pathlib.Path) -> Iterator[bytes]:
  opener = gzip.open if path.suffix == ".gz" else open
  try:
    with opener(path, "rb") as f:
      while line := f.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
          raise InputError(f"{path}: a line of {_MAX_LINE} bytes: split it")
        yield line
  except FileNotFoundError as e:
    raise InputError(f"{path}: no such file") from e
  except (OSError, EOFError, zlib.error) as e:  # also gzip's BadGzipFile
    raise InputError(f"{path}: cannot be read ({e}): get it again") from e
