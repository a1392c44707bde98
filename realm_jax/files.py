"""Files that matter: published whole or not at all, checked when read.

`atomic_publish` is the one way this project writes a file or a directory that
somebody will read later. `fail_point` names the places where a test can make
the disk full or kill the process.
"""

import concurrent.futures
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

_FAILPOINT = (
  "REALM_FAILPOINT"  # "name:raise", …:kill, …:disk_full or …:io_error
)
_FSYNCS = 8  # at a time
_ERRORS = {"disk_full": errno.ENOSPC, "io_error": errno.EIO}


def fail_point(name: str) -> None:
  """Fails here if the environment says so: REALM_FAILPOINT=name:how."""
  where, _, how = os.environ.get(_FAILPOINT, "").partition(":")
  if where != name:
    return
  if how == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
  if how in _ERRORS:
    raise OSError(_ERRORS[how], os.strerror(_ERRORS[how]), name)
  raise RuntimeError(f"fail point {name}")


@contextlib.contextmanager
def atomic_publish(
  path: str | os.PathLike, replace: bool = True
) -> Iterator[pathlib.Path]:
  """Yields a temporary path; its content appears at `path` only if all went well.

  The body writes a file, or makes a directory and fills it, at the yielded
  path. On success all is fsynced and renamed over `path` (an older directory
  is replaced); on any error the temporary is removed and nothing is left.

  Args:
    path: where it appears.
    replace: whether a directory that is there by then gives way.

  Raises:
    InputError: no space left on the device.
    FileExistsError: a directory is there, and must stay.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  tmp = path.with_name(f".tmp-{path.name}-{os.getpid()}")
  _remove(tmp)
  try:
    with disk_full_named(path):
      yield tmp
      fail_point("publish")
      fsync_tree(tmp)
      if path.is_dir() and not path.is_symlink() and replace:
        old = path.with_name(f".old-{path.name}-{os.getpid()}")
        os.rename(path, old)
        os.rename(tmp, path)
        shutil.rmtree(old)
      else:
        rename_new(tmp, path)
      fsync(path.parent)
  finally:
    _remove(tmp)


def rename_new(tmp: pathlib.Path, path: pathlib.Path) -> None:
  """Renames; of several who want a directory's name, exactly one gets it.

  Raises:
    FileExistsError: a directory of that name is there.
  """
  try:
    os.rename(tmp, path)
  except OSError as e:
    if not path.is_dir():
      raise
    raise FileExistsError(f"{path} is there already") from e


@contextlib.contextmanager
def disk_full_named(path: pathlib.Path) -> Iterator[None]:
  """Turns a full disk into an InputError that names what was being written."""
  try:
    yield
  except OSError as e:
    if e.errno not in (errno.ENOSPC, errno.EDQUOT):
      raise
    raise InputError(
      f"no space left on the disk of {path.parent} while writing"
      f" {path.name}: free some and run the same command again"
    ) from e


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


def append_json_line(path: pathlib.Path, value: Any) -> None:
  """Appends a line of JSON, on the disk when this returns.

  What a crash has left of a last line goes.
  """
  if not path.exists():
    with atomic_publish(path) as tmp:
      tmp.touch()
  line = json.dumps(value) + "\n"
  with disk_full_named(path), open(path, "r+b") as f:
    size = len(b"".join(_whole_lines(f.read())))
    f.truncate(size)
    f.seek(size)
    f.write(line.encode())
    f.flush()
    os.fsync(f.fileno())


def read_json_lines(path: pathlib.Path) -> list[Any]:
  """The values of append_json_line; a last line torn by a crash is not there.

  Raises:
    InputError: a whole line is no JSON.
  """
  content = path.read_bytes() if path.exists() else b""
  values = []
  for number, line in enumerate(_whole_lines(content), 1):
    try:
      values.append(json.loads(line))
    except ValueError as e:
      raise InputError(f"{path}:{number} is damaged, not JSON ({e})") from e
  return values


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
  """Forces a file, or all of a directory, to the disk.

  Many at a time: a file system writes what several wait for in one go.
  """
  with concurrent.futures.ThreadPoolExecutor(_FSYNCS) as pool:
    for _ in pool.map(fsync, [path, *path.rglob("*")]):
      pass  # raises what the first has raised


def _remove(path: pathlib.Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def _whole_lines(content: bytes) -> list[bytes]:
  return [x for x in content.splitlines(keepends=True) if x.endswith(b"\n")]
