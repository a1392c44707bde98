"""Data sets of tensorflow-datasets, read without TensorFlow.

A name in a config is "tfds:NAME" or "tfds:NAME:SPLIT" in the syntax of tfds,
such as "tfds:natural_questions_open:train[:90%]"; the split is "train" where
none is given. Records come back with the field names of our JSONL files.
"""

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from realm_jax.config import InputError

PREFIX = "tfds:"


def read(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields (place, record) of a data set, as articles.read_jsonl does.

  Bytes become texts, arrays lists, and a sequence of fields a list of objects.

  Raises:
    InputError: no such data set, or it isn't prepared as ArrayRecord.
  """
  dataset, _, split = name.removeprefix(PREFIX).partition(":")
  source = _open(dataset, split or "train")
  for i in range(len(source)):
    yield f"{name}:{i}", {k: _plain(v) for k, v in source[i].items()}


def _open(dataset: str, split: str) -> Any:
  import tensorflow_datasets as tfds

  # Older data sets are only known to tfds once their module is imported.
  for module in ("question_answering", "text"):
    importlib.import_module(f"tensorflow_datasets.{module}")
  try:
    return tfds.data_source(dataset, split=split)
  except Exception as e:  # tfds, its downloads and builders raise all kinds
    reason = str(e).strip().split("\n")[0][:160]
    raise InputError(
      f'"{PREFIX}{dataset}:{split}": tensorflow-datasets cannot open it'
      f" ({type(e).__name__}: {reason}): prepare it once with"
      f" tfds build {dataset} --file_format=array_record"
    ) from e


def _plain(value: Any) -> Any:
  if isinstance(value, bytes):
    return value.decode()
  if isinstance(value, dict):
    fields = {key: _plain(v) for key, v in value.items()}
    lens = {len(v) if isinstance(v, list) else -1 for v in fields.values()}
    if len(lens) != 1 or -1 in lens:  # an object, no sequence of them
      return fields
    rows = zip(*fields.values(), strict=True)
    return [dict(zip(fields, row, strict=True)) for row in rows]
  if isinstance(value, np.ndarray):
    return [_plain(v) for v in value.tolist()]
  return value
