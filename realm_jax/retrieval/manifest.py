"""The manifest of an index version: what made it, and a digest of each file.

Nothing in a version's directory can change by a byte, be missing or be added
without a word: every file but manifest.json has its sha256 in it, and
manifest.json holds its own and is read only if it is, byte for byte, the
text that was written.
"""

import concurrent.futures
import hashlib
import json
import pathlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from realm_jax import files
from realm_jax.config import InputError

FILE = "manifest.json"
KEYS = (
  "version",
  "dtype",
  "shape",
  "params_step",  # training step of the params that embedded the blocks
  "params_hash",  # of the embedder's params
  "tokenizer_hash",
  "corpus_hash",
  "template",  # how a block became an embedder input
  "seconds",  # it took to embed
)


def write(
  directory: pathlib.Path,
  manifest: Mapping[str, Any],
  known: Mapping[str, str] | None = None,
) -> None:
  """Writes the manifest of what is in a directory, its last file.

  Args:
    directory: has all the version's files.
    manifest: the values of KEYS, and more.
    known: file -> sha256 where they were computed already.
  """
  if missing := [key for key in KEYS if key not in manifest]:
    raise ValueError(f"manifest lacks {', '.join(missing)}")
  known = dict(known or {})
  known |= digests(directory, file_names(directory) - known.keys())
  manifest = {**manifest, "files": known}
  manifest["sha256"] = _own_digest(manifest)
  (directory / FILE).write_bytes(_text(manifest))


def read(directory: pathlib.Path) -> dict[str, Any]:
  """Reads a manifest; the files it names are not looked at.

  Raises:
    InputError: there is none, or it is damaged.
  """
  path = directory / FILE
  if not path.is_file():
    raise InputError(f"{directory}: no index version: it has no {FILE}")
  try:
    manifest = files.read_json(path)
  except InputError as e:
    raise InputError(f"{e}; it is damaged: {mend(directory)}") from e
  if (
    not isinstance(manifest, dict)
    or manifest.get("sha256") != _own_digest(manifest)
    or path.read_bytes() != _text(manifest)
    or "files" not in manifest
  ):
    raise InputError(f"{path} is damaged: {mend(directory)}")
  return manifest


def verify(
  directory: pathlib.Path, left_out: Collection[str] = ()
) -> dict[str, Any]:
  """Reads a manifest and compares every file with its digest.

  Args:
    directory: of the version.
    left_out: files that only have to be there: another process reads them.

  Raises:
    InputError: names the file that is damaged, missing or not the version's.
  """
  manifest = read(directory)
  there, named = file_names(directory), manifest["files"]
  if missing := sorted(named.keys() - there):
    raise InputError(
      f"{directory / missing[0]} is missing, damaged version: {mend(directory)}"
    )
  if stray := sorted(there - named.keys()):
    raise InputError(
      f"{directory / stray[0]}: no file of this index version: delete it"
    )
  mine = named.keys() - set(left_out)
  for name, digest in digests(directory, mine).items():
    if named[name] != digest:
      raise InputError(
        f"{directory / name} is damaged (sha256 differs): {mend(directory)}"
      )
  return manifest


def check(
  directory: pathlib.Path, manifest: Mapping[str, Any], expect: Mapping
) -> None:
  """Refuses a version that is not of this model, tokenizer or corpus.

  Args:
    directory: of the version, for messages.
    manifest: its manifest.
    expect: keys and the values they must have.

  Raises:
    InputError: names the key and both values.
  """
  for key, value in expect.items():
    wanted = list(value) if isinstance(value, tuple) else value
    if manifest.get(key) != wanted:
      raise InputError(
        f"{directory / FILE}: {key} is {manifest.get(key)!r}, but model,"
        f" tokenizer or corpus have {wanted!r}: build the index again with"
        " experiments.build_index"
      )


def file_names(directory: pathlib.Path) -> set[str]:
  """Names of all files under a directory but the manifest, links included."""
  names = {
    path.relative_to(directory).as_posix()
    for path in directory.rglob("*")
    if path.is_symlink() or not path.is_dir()
  }
  return names - {FILE}


def digests(directory: pathlib.Path, names: Iterable[str]) -> dict[str, str]:
  """File -> hex sha256, hashed side by side."""
  names = sorted(names)
  with concurrent.futures.ThreadPoolExecutor() as pool:
    hashes = pool.map(lambda name: files.sha256_file(directory / name), names)
    return dict(zip(names, hashes, strict=True))


def template(block_len: int) -> str:
  """How a block becomes an embedder input of block_len wordpieces."""
  return f"[CLS] title [SEP] body [SEP] in {block_len} wordpieces"


def mend(directory: pathlib.Path) -> str:
  """What to do with a damaged version, for messages."""
  return (
    f"delete {directory} and run again, or use another version (--config.index)"
  )


def _own_digest(manifest: Mapping[str, Any]) -> str:
  rest = {k: v for k, v in manifest.items() if k != "sha256"}
  return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _text(manifest: Mapping[str, Any]) -> bytes:
  return (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
