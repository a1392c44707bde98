"""What a person wants to know and do about the index versions of a run."""

import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.retrieval import index, journal, manifest, staging

_HEAD = (
  "version", "step", "blocks", "P", "dtype", "MB", "seconds", "searched from",
  "corpus",
)  # fmt: skip
_CHANGES = ("added", "updated", "deleted")


def table(run_dir: str | os.PathLike) -> str:
  """The versions of a run, a line each; a damaged one says so.

  Raises:
    InputError: there are none.
  """
  versions = _versions(run_dir)
  used = {
    s["version"]: f"step {s['step']}" for s in journal.read_swaps(run_dir)
  }
  lines = [_HEAD]
  for version in versions:
    path = index.version_path(run_dir, version)
    try:
      made = manifest.read(path)
    except InputError as e:
      lines.append((str(version), str(e)))
      continue
    size = sum((path / name).stat().st_size for name in made["files"])
    lines.append(
      (
        str(version),
        str(made["params_step"]),
        *map(str, made["shape"]),
        made["dtype"],
        f"{size / 1e6:.1f}",
        f"{made['seconds']:.1f}",
        used.get(version, "-"),
        _corpus(made),
      )
    )
  widths = [max(map(len, column)) for column in zip(*[
    line for line in lines if len(line) == len(_HEAD)
  ], strict=True)]  # fmt: skip
  return "\n".join(
    "  ".join(map(str.ljust, line, widths[: len(line)])).rstrip()
    for line in lines
  )


def verify(
  run_dir: str | os.PathLike, versions: Sequence[int] = ()
) -> Iterator[str]:
  """A line for each version whose every byte is what was written.

  Args:
    run_dir: the run's directory.
    versions: which; none for all.

  Raises:
    InputError: there are none, or, at the end, one is damaged; names what.
  """
  damaged = []
  for version in versions or _versions(run_dir):
    try:
      path = index.find_version(run_dir, version)
      made = manifest.verify(path)
    except InputError as e:
      damaged.append(str(e))
      continue
    yield f"{path}: {len(made['files'])} files are as they were written"
  if damaged:
    raise InputError("; ".join(damaged))


def collect(run_dir: str | os.PathLike, keep: int) -> list[str]:
  """Deletes old versions and what was left unfinished; returns the names.

  The newest `keep` versions stay, and the newest `keep` that are whole. An
  unfinished build goes if a version of later params is there.

  Raises:
    InputError: keep < 1, there are no versions, or a builder is at work.
  """
  _versions(run_dir)
  with staging.lock(run_dir):
    folder = index.index_dir(run_dir)
    before = {path.name for path in folder.iterdir()}
    whole = [
      v for v in reversed(index.list_versions(run_dir)) if _whole(run_dir, v)
    ]
    index.retain(run_dir, keep, pinned=whole[:keep])
    build = folder / ".build"
    if whole and (build / "identity.json").exists():
      newest = index.read_manifest(run_dir, whole[0])["params_step"]
      if files.read_json(build / "identity.json")["params_step"] < newest:
        shutil.rmtree(build)
    return sorted(before - {path.name for path in folder.iterdir()})


def _versions(run_dir: str | os.PathLike) -> list[int]:
  if versions := index.list_versions(run_dir):
    return versions
  raise InputError(
    f"{index.index_dir(run_dir)}: no index version: run experiments.build_index"
  )


def _whole(run_dir: str | os.PathLike, version: int) -> bool:
  try:
    manifest.verify(index.version_path(run_dir, version))
  except InputError:
    return False
  return True


def _corpus(made: dict) -> str:
  """Whose corpus a version has, in a few words."""
  if "changed" not in made:
    own = any(
      pathlib.PurePath(n).parts[0] == index.BLOCKS for n in made["files"]
    )
    return "its own" if own else "the data's"
  changed = made["changed"]
  counts = ", ".join(f"{changed[name]} {name}" for name in _CHANGES)
  return f"of version {changed['parent']}: {counts}"
