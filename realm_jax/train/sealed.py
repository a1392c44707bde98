"""Numbered directories that are whole and checked.

A directory is sealed by `sha256.json`, the digest of every file in it, written
last and before the directory gets its number for a name. What has no seal does
not exist; what does not agree with its seal is refused by name.
"""

import pathlib
import shutil
from collections.abc import Container

from realm_jax import files
from realm_jax.config import InputError

SEAL = "sha256.json"


def seal(directory: pathlib.Path, leave_out: Container[str] = ()) -> None:
  """Writes the digests of all files but those named, and forces all to disk."""
  digests = {
    str(file.relative_to(directory)): files.sha256_file(file)
    for file in sorted(directory.rglob("*"))
    if file.is_file() and file.name not in leave_out
  }
  files.write_json(directory / SEAL, digests)
  files.fsync_tree(directory)


def numbers(path: pathlib.Path) -> list[int]:
  """Numbers of the sealed directories in `path`, smallest first."""
  names = (file.parent.name for file in path.glob(f"*/{SEAL}"))
  return sorted(int(name) for name in names if name.isdecimal())


def remove(directory: pathlib.Path) -> None:
  """Removes a directory, its seal first: half of one is none."""
  (directory / SEAL).unlink(missing_ok=True)
  shutil.rmtree(directory)


def remove_unsealed(path: pathlib.Path) -> None:
  """Removes from `path` what is no sealed directory."""
  whole = {str(number) for number in numbers(path)}
  for directory in path.iterdir():
    if directory.name not in whole:
      shutil.rmtree(directory)


def verify(path: pathlib.Path, number: int) -> None:
  """Compares every file of a sealed directory with its digest.

  Raises:
    InputError: there is no such directory, or a file in it has changed; names
      the file and the newest good directory before this one.
  """
  directory, have = path / str(number), numbers(path)
  if number not in have:
    listed = ", ".join(map(str, have)) or "none"
    raise InputError(f"{directory}: no such checkpoint; there are: {listed}")
  damaged = _damaged_file(directory)
  if damaged is None:
    return
  older = (n for n in reversed(have) if n < number)
  good = next((n for n in older if not _damaged_file(path / str(n))), None)
  mend = "no older one is good: start again in another workdir"
  if good is not None:
    mend = f"delete {directory} to go on from step {good}, which is good"
  raise InputError(f"{damaged} is not what was saved (sha256 differs): {mend}")


def _damaged_file(directory: pathlib.Path) -> pathlib.Path | None:
  """The first file that is not as it was when it was sealed."""
  for name, digest in files.read_json(directory / SEAL).items():
    file = directory / name
    if not file.exists() or files.sha256_file(file) != digest:
      return file
  return None
