"""A run's config.json, which says whose a workdir is: written and read here.

A run of an older version lacks the fields that came later. Those below are
given what such a run did; one that lacks another field is refused, in a line
that names it, by whatever needs it.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from realm_jax import files
from realm_jax.config import InputError

# What came later, with what a run did until then: fields of all runs,
_OF_ALL = {
  "attention": "xla",
  "block_tokens": "device",
  "compute_dtype": "float32",
  "contiguous": True,
  "data.sentence_splitter": "rules",
  "mesh.fsdp": 1,
  "mesh.tensor": 1,
  "refresh.share": 0,
  "remat": "none",
}
# and of some.
CAME_LATER = _OF_ALL | {
  "fill.block": 1.0,
  "fill.joint": 1.0,
  "fill.masks": 1.0,
  "fill.query": 1.0,
  "masking": "salient",
  "query_params": "current",
}

_FILE = "config.json"
# What a second start in a workdir may give otherwise.
_MAY_DIFFER = (
  "attention",
  "block_tokens",
  "data.source_cache",
  "example",
  "mesh.data",
  "mesh.fsdp",
  "mesh.tensor",
  "microbatches",
  "refresh.keep",
  "refresh.max_staleness_steps",
  "refresh.at_bound",
  "refresh.block_seconds",
  "refresh.poll_steps",
  "refresh.supervise",
  "remat",
  "train.num_steps",
  "train.log_every",
  "train.eval_every",
  "train.checkpoint_every",
  "train.keep_checkpoints",
  "train.max_in_flight",
)


class MissingField(InputError, KeyError):
  """A run's config lacks a field."""

  __str__ = InputError.__str__  # KeyError's puts it in quotes


class RunConfig(ConfigDict):
  """The config of a run; a field that it lacks is a MissingField."""

  def __init__(self, values: Mapping[str, Any], file: str, prefix: str = ""):
    """Takes nested values, without a type to hold them to.

    Args:
      values: of the fields.
      file: where they are from, for messages.
      prefix: of their names there, "train.".
    """
    super().__init__(type_safe=False)
    object.__setattr__(self, "_place", (file, prefix))
    for key, value in values.items():
      nested = isinstance(value, Mapping)
      self[key] = RunConfig(value, file, f"{prefix}{key}.") if nested else value

  def __getitem__(self, key: str) -> Any:
    """The value of a field.

    Raises:
      MissingField: there is none.
    """
    try:
      return super().__getitem__(key)
    except KeyError as e:
      file, prefix = self._place
      raise MissingField(
        f"{file}: this run has no {prefix}{key}: it is of another kind, or of"
        " an older version of realm-jax: train it again, or add the field"
      ) from e

  def __getattr__(self, name: str) -> Any:
    if name.startswith("_"):
      raise AttributeError(name)
    return self[name]


def read(workdir: str | os.PathLike) -> RunConfig:
  """Reads the config.json of a run's directory.

  Raises:
    InputError: there is none, or it holds no object of JSON.
  """
  file = pathlib.Path(workdir) / _FILE
  config = RunConfig(_values(file), str(file))
  for name, value in _OF_ALL.items():
    group, _, field = name.rpartition(".")
    if not group and field not in config:
      config[field] = value
    elif group in config and field not in config[group]:
      config[group][field] = value
  return config


def claim(workdir: str | os.PathLike, config: Mapping[str, Any]) -> None:
  """Makes `workdir` this config's run, or checks that it already is.

  How long the run goes on and what it logs may differ from the last start.

  Args:
    workdir: the run's directory, made if it is not there.
    config: nested dict of what JSON can hold.

  Raises:
    InputError: the directory holds the run of another config, or a file that
      is none.
  """
  path = pathlib.Path(workdir) / _FILE
  config = json.loads(json.dumps(config))  # tuples as lists, as in the file
  if path.exists():
    held, given = (flatten(c) for c in (_values(path), config))
    for key in sorted(held.keys() | given.keys()):
      before = CAME_LATER.get(key, "not set")
      old, new = held.get(key, before), given.get(key, "not set")
      if old != new and key not in _MAY_DIFFER:
        mend = f", or give --config.{key}={old}" if key in held else ""
        raise InputError(
          f"{path}: this workdir holds a run with {key}={old}, not {new}: take"
          f" another workdir{mend}"
        )
  if jax.process_index() == 0:
    files.write_json(path, config)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"train": {"batch_size": 8}} as {"train.batch_size": 8}."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping | ConfigDict):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def _values(file: pathlib.Path) -> dict[str, Any]:
  values = files.read_json(file)
  if not isinstance(values, dict):
    raise InputError(f"{file}: wanted an object of JSON")
  return values
