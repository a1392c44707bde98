"""Whether every byte of a run's checkpoints and index versions is as written."""

import os
import pathlib
from collections.abc import Iterator

from realm_jax.config import InputError
from realm_jax.retrieval import catalog
from realm_jax.retrieval import index as versions
from realm_jax.train import checkpoint, sealed


def verify(workdir: str | os.PathLike) -> Iterator[str]:
  """A line for each checkpoint and version that is good.

  Raises:
    InputError: there is neither, or, at the end, some are damaged; names them.
  """
  folder = checkpoint.folder(workdir)
  steps, there = sealed.numbers(folder), versions.list_versions(workdir)
  if not (steps or there):
    raise InputError(
      f"{pathlib.Path(workdir)}: neither checkpoints nor index versions here"
    )
  damaged = []
  for step in steps:
    try:
      sealed.verify(folder, step)
    except InputError as e:
      damaged.append(str(e))
    else:
      yield f"{folder / str(step)}: as it was saved"
  try:
    if there:
      yield from catalog.verify(workdir, there)
  except InputError as e:
    damaged.append(str(e))
  if damaged:
    raise InputError("; ".join(damaged))
