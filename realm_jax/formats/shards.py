"""Checkpoints in several files: an index.json that says where each tensor is."""

import os
import pathlib
from collections.abc import Callable

import numpy as np

from realm_jax.config import InputError
from realm_jax.formats import arrays, strict_json

SUFFIX = ".index.json"


def read_shards(
  path: str | os.PathLike,
  read_file: Callable[[pathlib.Path], dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
  """The tensors of all files that an index names, read by `read_file`.

  Raises:
    InputError: no index, a file that is missing or not beside it, or one that
      holds other tensors than the index says.
  """
  path = pathlib.Path(path)
  tensors = {}
  for name, wanted in sorted(_by_file(path).items()):
    found = read_file(_beside(path, name))
    if differing := wanted ^ found.keys():
      tensor = min(differing)
      where = "lacks" if tensor in wanted else "has beside what the index says"
      raise InputError(
        f"{path.parent / name}: {where} {tensor[:80]!r}: get the index and its"
        " files again, all of one version"
      )
    tensors |= found
  return tensors


def _by_file(path: pathlib.Path) -> dict[str, set[str]]:
  """File name -> the tensors that the index says it holds."""
  index = strict_json.parse_json(arrays.map_file(path).tobytes(), str(path))
  weight_map = index.get("weight_map") if isinstance(index, dict) else None
  if not isinstance(weight_map, dict) or not weight_map:
    raise InputError(f'{path}: lacks "weight_map", tensor name to file name')
  by_file: dict[str, set[str]] = {}
  for tensor, name in weight_map.items():
    if not isinstance(name, str) or pathlib.PurePath(name).name != name:
      raise InputError(
        f"{path}: weight_map[{tensor[:80]!r}] must be the name of a file beside"
        " the index"
      )
    by_file.setdefault(name, set()).add(tensor)
  return by_file


def _beside(path: pathlib.Path, name: str) -> pathlib.Path:
  try:
    if (file := path.with_name(name)).is_file():
      return file
  except (OSError, ValueError):  # a name that no file system takes
    pass
  raise InputError(
    f"{path}: names the file {name[:80]!r}, which is not beside it: get it too"
  )
