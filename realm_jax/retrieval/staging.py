"""An index version in the making: what a killed build leaves and goes on with.

RUN/index/.build/ has `identity.json`, what the version is made of; `version/`,
which one rename makes the next version; and `ledger/`, the finished chunks of
rows with their digests, a file for each job. A chunk counts as finished where
its file is what a line says, so a chunk that two jobs have written, or that was
torn, is never mistaken. Jobs that don't know their share beforehand claim a
chunk at a time, by a lock in `claims/`.

RUN/index/.lock is held, shared, by the jobs of one build, and by one process
alone while it publishes. The kernel lets go of it when its holder dies.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.retrieval import index, manifest, rows

_LEDGER, _VERSION, _CLAIMS = "ledger", "version", "claims"
_IDENTITY = "identity.json"


class Busy(InputError):
  """Somebody else is at work."""


class Lock:
  """RUN/index/.lock, held; see `lock`."""

  def __init__(self, file, name: str):
    self._file, self._name = file, name

  def alone(self) -> bool:
    """Gives a shared lock up for one that nobody shares; False: others do.

    Of jobs that end together, the last to ask is alone.
    """
    fcntl.flock(self._file, fcntl.LOCK_UN)
    return self._try(fcntl.LOCK_EX)

  def share(self) -> bool:
    """Takes it, shared; False: somebody is alone with it."""
    return self._try(fcntl.LOCK_SH)

  def _try(self, how: int) -> bool:
    with contextlib.suppress(BlockingIOError):
      fcntl.flock(self._file, how | fcntl.LOCK_NB)
      return True
    return False


@contextlib.contextmanager
def lock(run_dir: str | os.PathLike, shared: bool = False) -> Iterator[Lock]:
  """Holds a run's index for a build.

  Args:
    run_dir: the run's directory.
    shared: whether other jobs of the same build may hold it too.

  Raises:
    Busy: another builder holds it.
  """
  path = index.index_dir(run_dir) / ".lock"
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, "ab") as file:
    _take(file, shared, f"{path.parent}: another builder is at work here")
    yield Lock(file, str(path))


class Staging:
  """RUN/index/.build, opened while the index is locked; a context manager.

  Attributes:
    path: the directory.
    version: the directory in it that becomes the version.
    chunk_rows, num_chunks: of the open rows.
  """

  def __init__(
    self,
    run_dir: str | os.PathLike,
    identity: Mapping[str, Any],
    job: str = "0-1",
    alone: bool = True,
    say=lambda text: None,
  ):
    """Goes on with a build of the same identity, or begins one.

    Args:
      run_dir: the run's directory.
      identity: what the version is made of; JSON.
      job: the name of this one among several jobs.
      alone: whether nobody else has the lock, so that another build may be
        thrown away.
      say: told by name when another build is thrown away.

    Raises:
      InputError: another build is unfinished and its jobs may be running, or
        this very job runs already.
    """
    self._run_dir = run_dir
    self.path = _folder(run_dir)
    self.version = self.path / _VERSION
    self._ledgers = self.path / _LEDGER
    self._ledger = self._ledgers / f"{job}.jsonl"
    held = self.path / _IDENTITY
    if held.exists() and (unlike := _unlike(files.read_json(held), identity)):
      text = f"{self.path} is an unfinished build with another {unlike}"
      if not alone:
        raise InputError(
          f"{text}: build without --shard to start over, or delete it"
        )
      say(f"{text}: started over")
      old = self.path.with_name(f".old-build-{os.getpid()}")
      os.rename(self.path, old)  # at once: no ledger outlives its identity
      shutil.rmtree(old)
    self.version.mkdir(parents=True, exist_ok=True)
    self._ledgers.mkdir(exist_ok=True)
    (self.path / _CLAIMS).mkdir(exist_ok=True)
    files.write_json(held, identity)
    self._own = open(self._ledgers / f"{job}.lock", "ab")  # noqa: SIM115
    _take(self._own, False, f"{self.path}: shard {job} is under way already")

  def __enter__(self) -> "Staging":
    return self

  def __exit__(self, *_) -> None:
    self._own.close()

  def discard(self) -> None:
    """Throws it all away."""
    shutil.rmtree(self.path)

  def open_rows(
    self, shape: tuple[int, int], dtype: Any, chunk_rows: int
  ) -> None:
    """Makes the array [N, P] that `add` writes to, or opens it.

    Raises:
      InputError: no space left.
    """
    self.chunk_rows = chunk_rows
    self.num_chunks = -(-shape[0] // chunk_rows)
    with files.disk_full_named(self.version / index.ROWS):
      self._rows = rows.create(
        self.version / index.ROWS, shape, dtype, chunk_rows
      )

  @contextlib.contextmanager
  def claim(self, chunk: int) -> Iterator[bool]:
    """Holds a chunk, if nobody does: a dead job's are free again.

    Yields:
      Whether it is held now.
    """
    path = self.path / _CLAIMS / f"{chunk}.lock"
    with open(path, "ab") as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        free = False
      else:
        free = True
      yield free

  def is_finished(self, chunk: int) -> bool:
    """Whether a chunk that is claimed is finished by now."""
    return chunk in _as_written(self.path, _lines(self.path, chunk))

  def add(
    self, chunk: int, values: np.ndarray, seconds: float, flops: int = 0
  ) -> None:
    """Writes a chunk [n, P], then its line in the ledger: what it took.

    Raises:
      InputError: no space left; what is finished stays.
    """
    path = self.version / index.ROWS
    with files.disk_full_named(path):
      # The last chunk has room for more rows: a torn one would be read first.
      (path / rows.chunk_name(chunk)).unlink(missing_ok=True)
      rows.write(path, self._rows, chunk * self.chunk_rows, values)
      files.fail_point(f"build_chunk_{chunk}")
    digest = files.sha256_file(path / rows.chunk_name(chunk))
    line = {
      "chunk": chunk, "sha256": digest, "seconds": seconds, "flops": flops,
    }  # fmt: skip
    files.append_json_line(self._ledger, line)
    files.fail_point(f"build_ledger_{chunk}")

  def finished(self) -> dict[int, dict[str, Any]]:
    """Chunk -> its line of the ledger, for those that are as it says."""
    return finished_chunks(self.path)

  def publish(
    self, made_of: Mapping[str, Any], blocks: pathlib.Path | None = None
  ) -> pathlib.Path:
    """Makes it the next version, once all chunks are finished.

    The lock must be held alone.

    Args:
      made_of: the manifest, but for what is known here: version, dtype, shape,
        seconds and flops.
      blocks: a block store that is copied into the version.

    Returns:
      The version's directory.

    Raises:
      InputError: no space left.
    """
    lines = self.finished()
    if len(lines) != self.num_chunks:
      raise ValueError(f"{len(lines)} of {self.num_chunks} chunks are finished")
    if blocks and not (self.version / index.BLOCKS).exists():
      with files.atomic_publish(self.version / index.BLOCKS) as tmp:
        shutil.copytree(blocks, tmp)
    known = {
      f"{index.ROWS}/{rows.chunk_name(chunk)}": line["sha256"]
      for chunk, line in lines.items()
    }
    self._remove_strays(known)
    made_of = {
      **made_of,
      "dtype": str(self._rows.dtype.numpy_dtype),
      "shape": list(self._rows.shape),
      "seconds": round(sum(line["seconds"] for line in lines.values()), 3),
      "flops": sum(line.get("flops", 0) for line in lines.values()),
    }
    path = self._rename(made_of, known)
    files.fsync(path.parent)
    files.fail_point("index_published")
    self.discard()
    return path

  def _rename(self, made_of, known) -> pathlib.Path:
    """To the next free number; a training run may take one meanwhile."""
    while True:
      number = index.next_version(self._run_dir)
      path = index.version_path(self._run_dir, number)
      with files.disk_full_named(path):
        files.fail_point("index_manifest")
        manifest.write(self.version, {**made_of, "version": number}, known)
        files.fsync_tree(self.version)
      files.fail_point("index_publish")
      with contextlib.suppress(FileExistsError):
        files.rename_new(self.version, path)
        return path

  def _remove_strays(self, known) -> None:
    """What killed writers left beside the rows and the blocks."""
    for path in self.version.iterdir():
      if path.name.startswith("."):
        shutil.rmtree(path)
    ours = {*known, f"{index.ROWS}/zarr.json"}
    for name in manifest.file_names(self.version):
      if name.startswith(f"{index.ROWS}/") and name not in ours:
        (self.version / name).unlink()


def finished_chunks(path: pathlib.Path) -> dict[int, dict[str, Any]]:
  """Staging.finished of a staging directory that nobody has opened.

  Raises:
    InputError: a ledger is damaged.
  """
  return _as_written(path, _lines(path))


def unfinished(run_dir: str | os.PathLike) -> dict[str, Any] | None:
  """The identity of the build that is under way or was left; None: there is none."""
  path = _folder(run_dir) / _IDENTITY
  return files.read_json(path) if path.exists() else None


def _lines(path: pathlib.Path, chunk: int | None = None) -> list[dict]:
  """What the ledgers say, of one chunk or of all."""
  return [
    line
    for ledger in sorted((path / _LEDGER).glob("*.jsonl"))
    for line in files.read_json_lines(ledger)
    if chunk in (None, line["chunk"])
  ]


def _as_written(path: pathlib.Path, lines: list[dict]) -> dict[int, dict]:
  """Chunk -> its line, for those that are as a line says."""
  array = path / _VERSION / index.ROWS
  names = {rows.chunk_name(line["chunk"]) for line in lines}
  there = {name for name in names if (array / name).is_file()}
  digests = manifest.digests(array, there)
  return {
    line["chunk"]: line
    for line in lines
    if digests.get(rows.chunk_name(line["chunk"])) == line["sha256"]
  }


def _folder(run_dir: str | os.PathLike) -> pathlib.Path:
  return index.index_dir(run_dir) / ".build"


def _take(file, shared: bool, busy: str) -> None:
  how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
  try:
    fcntl.flock(file, how | fcntl.LOCK_NB)
  except BlockingIOError as e:
    raise Busy(f"{busy}: wait until it has ended") from e


def _unlike(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
  """The first key of two identities that differs, with both values."""
  for key in sorted(held.keys() | wanted.keys()):
    if held.get(key) != wanted.get(key):
      return f"{key} ({held.get(key)!r}, not {wanted.get(key)!r})"
  return ""
