"""Files that matter: published whole or not at all, checked when read.

`atomic_publish` is the one way this project writes a file or a directory that
somebody will read later. `fail_point` names the places where a test can make
the disk full or kill the process.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import signal
from collections.abc import Iterator
from typing import Any

from realm_jax.config import InputError

_FAIL_AT = "REALM_FAIL_AT"  # "name:raise", "name:disk_full" or "name:kill"


def fail_point(name: str) -> None:
  """Fails here if the environment says so: REALM_FAIL_AT=name:how."""
  where, _, how = os.environ.get(_FAIL_AT, "").partition(":")
  if where != name:
    return
  if how == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
  if how == "disk_full":
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
  raise RuntimeError(f"fail point {name}")


@contextlib.contextmanager
def atomic_publish(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Yields a temporary path; its content appears at `path` only if all went well.

  The body writes a file, or makes a directory and fills it, at the yielded
  path. On success all is fsynced and renamed over `path` (an older directory
  is replaced); on any error the temporary is removed and nothing is left.

  Raises:
    InputError: no space left on the device.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  tmp = path.with_name(f".tmp-{path.name}-{os.getpid()}")
  _remove(tmp)
  try:
    yield tmp
    fail_point("publish")
    fsync_tree(tmp)
    if path.is_dir() and not path.is_symlink():
      old = path.with_name(f".old-{path.name}-{os.getpid()}")
      os.rename(path, old)
      os.rename(tmp, path)
      shutil.rmtree(old)
    else:
      os.rename(tmp, path)
    fsync(path.parent)
  except OSError as e:
    if e.errno == errno.ENOSPC:
      raise InputError(
        f"no space left on the disk of {path.parent} while writing"
        f" {path.name}: free some and run the same command again"
      ) from e
    raise
  finally:
    _remove(tmp)


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Publishes `value` as indented JSON."""
  with atomic_publish(path) as tmp:
    tmp.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: str | os.PathLike) -> Any:
  """Reads a JSON file; InputError names the file when missing or broken."""
  try:
    return json.loads(pathlib.Path(path).read_text("utf-8"))
  except FileNotFoundError as e:
    raise InputError(f"{path}: no such file") from e
  except json.JSONDecodeError as e:
    raise InputError(f"{path}:{e.lineno}: not JSON ({e.msg})") from e
  except UnicodeDecodeError as e:
    raise InputError(f"{path}: not UTF-8 text (byte {e.start})") from e


def sha256_file(path: str | os.PathLike) -> str:
  """Hex sha256 of a file's bytes."""
  with open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()


def fsync(path: pathlib.Path) -> None:
  """Forces one file, or one directory's list of names, to the disk."""
  fd = os.open(path, os.O_RDONLY)
  try:
    os.fsync(fd)
  finally:
    os.close(fd)


def fsync_tree(path: pathlib.Path) -> None:
  """Forces a file, or all of a directory, to the disk."""
  if path.is_dir():
    for child in path.iterdir():
      fsync_tree(child)
  fsync(path)


def _remove(path: pathlib.Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
