"""A tokenizer's files, as transformers 4.34 reads and writes them.

vocab.txt; tokenizer_config.json, the constructor's arguments and all added
tokens; tokenizer.json, the fast tokenizer whole. added_tokens.json and
special_tokens_map.json are read only where an older version wrote them, that
is where tokenizer_config.json lacks "added_tokens_decoder".
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging
from tokenizers import AddedToken

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data.special_tokens import ADDITIONAL

VOCAB = "vocab.txt"
BACKEND = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIAL = "special_tokens_map.json"
ADDED = "added_tokens.json"
# Of the place and the class, not of the tokenizer.
_UNSAVED = (
  "vocab_file",
  "tokenizer_file",
  "name_or_path",
  "from_slow",
  "special_tokens_map_file",
  "tokenizer_class",
  "init_inputs",
)


def load(
  cls: type, directory: str | os.PathLike, overrides: Mapping[str, Any]
) -> Any:
  """Makes a tokenizer; see PretrainedTokenizer.from_pretrained.

  Args:
    cls: RealmTokenizer or RealmTokenizerFast.
  """
  path = pathlib.Path(directory).expanduser()
  if not path.is_dir():
    raise InputError(
      f"{path}: no such directory; download the tokenizer's files (vocab.txt,"
      " tokenizer_config.json) into one and give its path"
    )
  arguments = _arguments(cls, path, overrides)
  has_added = "added_tokens_decoder" in _read_object(path / CONFIG) | overrides
  backend = path / BACKEND
  from_slow = arguments.pop("from_slow", False)
  if cls.is_fast and backend.is_file() and not from_slow:
    return cls(**{"tokenizer_file": backend} | arguments)
  if "vocab_file" not in arguments:
    if not (path / VOCAB).is_file():
      raise InputError(f"{path}: lacks {VOCAB}, one wordpiece a line")
    arguments["vocab_file"] = path / VOCAB
  tokenizer = cls(**arguments)
  older = not has_added and not (path / ADDED).is_file()
  if older and not cls.is_fast and backend.is_file():
    saved = _read_object(backend).get("added_tokens", [])
    tokenizer.add_tokens(
      [_token(token | {"special": False}, always=True) for token in saved]
    )
  return tokenizer


def _arguments(
  cls: type, path: pathlib.Path, overrides: Mapping[str, Any]
) -> dict[str, Any]:
  """Constructor arguments that a directory's files and `overrides` give."""
  config = _read_object(path / CONFIG)
  for name in _UNSAVED:
    config.pop(name, None)
  arguments = {k: _token(v) for k, v in (config | overrides).items()}
  arguments["name_or_path"] = str(path)
  others = list(arguments.pop(ADDITIONAL, None) or [])
  if "added_tokens_decoder" in arguments:
    added = {
      int(i): _token(token, always=True)
      for i, token in arguments["added_tokens_decoder"].items()
    }
    for token in added.values():
      if str(token) in others:
        others.remove(str(token))
      if token.special and token not in others:
        others.append(token)
  else:
    for name, value in _read_object(path / SPECIAL).items():
      if overrides.get(name):
        continue
      if name == ADDITIONAL:
        for token in (_token(v, always=True) for v in value):
          others += [] if token in others else [token]
      else:
        arguments[name] = _token(value, always=True)
    strip = not cls.is_fast
    added = {
      i: AddedToken(text, rstrip=strip, lstrip=strip)
      for text, i in _read_object(path / ADDED).items()
    }
  return arguments | {ADDITIONAL: others, "added_tokens_decoder": added}


def _token(value: Any, always: bool = False) -> Any:
  """The same with AddedTokens for the dicts that stand for them.

  Args:
    always: a dict stands for a token even if it does not say so.
  """
  if isinstance(value, dict):
    if not always and value.get("__type") != "AddedToken":
      return {k: _token(v) for k, v in value.items()}
    fields = {k: v for k, v in value.items() if k not in ("__type", "id")}
    try:
      return AddedToken(**fields)
    except TypeError as e:
      raise InputError(f"{value!r:.120} is no added token: {e}") from e
  if isinstance(value, (list, tuple)):
    return [_token(v) for v in value]
  return value


def _read_object(path: pathlib.Path) -> dict[str, Any]:
  """The JSON object in a file, {} if there is no such file."""
  value = files.read_json(path) if path.is_file() else {}
  if not isinstance(value, dict):
    raise InputError(f"{path}: wanted a JSON object")
  return value


def read_vocabulary(path: str | os.PathLike) -> dict[str, int]:
  """Piece -> id, its line; of a piece that is there twice, the last.

  Raises:
    InputError: no such file, or not UTF-8.
  """
  if path is None or not os.path.isfile(path):
    raise InputError(
      f"vocab_file={path!r}: no such file; from_pretrained(directory) reads the"
      f" {VOCAB} of a directory"
    )
  try:
    with open(path, encoding="utf-8") as lines:
      return {line.rstrip("\n"): i for i, line in enumerate(lines)}
  except UnicodeDecodeError as e:
    raise InputError(f"{path}: not UTF-8 text (byte {e.start})") from e


def save(
  tokenizer: Any,
  directory: str | os.PathLike,
  legacy_format: bool | None,
  prefix: str | None,
) -> tuple[str, ...]:
  """Writes a tokenizer; see PretrainedTokenizer.save_pretrained."""
  if legacy_format is False and not tokenizer.is_fast:
    raise InputError("legacy_format=False: only RealmTokenizerFast has another")
  path = pathlib.Path(directory).expanduser()
  if path.is_file():
    raise InputError(f"{path}: wanted a directory, this is a file")
  path.mkdir(parents=True, exist_ok=True)
  written = [
    _write_json(_named(path, CONFIG, prefix), _config(tokenizer)),
    _write_json(_named(path, SPECIAL, prefix), tokenizer.special_tokens_map),
  ]
  if legacy_format is not False:
    written += tokenizer.save_vocabulary(path, prefix)
    if added := tokenizer.get_added_vocab():
      written.append(_write_json(_named(path, ADDED, prefix), added))
  if tokenizer.is_fast and legacy_format is not True:
    backend = _named(path, BACKEND, prefix)
    with files.atomic_publish(backend) as tmp:
      tokenizer.backend_tokenizer.save(str(tmp))
    written.append(str(backend))
  return tuple(written)


def _config(tokenizer: Any) -> dict[str, Any]:
  """What tokenizer_config.json says: arguments, with their values of today."""
  config = dict(tokenizer.init_kwargs)
  names = ("model_max_length", "clean_up_tokenization_spaces", ADDITIONAL)
  for name in (*config, *names):
    if hasattr(tokenizer, name):
      config[name] = getattr(tokenizer, name)
  for name in _UNSAVED:
    config.pop(name, None)
  return config | {
    "added_tokens_decoder": {
      i: token.__getstate__()
      for i, token in tokenizer.added_tokens_decoder.items()
    },
    "tokenizer_class": type(tokenizer).__name__.removesuffix("Fast"),
  }


def save_vocabulary(
  vocab: Mapping[str, int], directory: str | os.PathLike, prefix: str | None
) -> tuple[str, ...]:
  """Writes pieces in the order of their ids; see PretrainedTokenizer."""
  directory = pathlib.Path(directory).expanduser()
  if not directory.is_dir():
    raise InputError(f"{directory}: no such directory")
  path = _named(directory, VOCAB, prefix)
  pieces = sorted(vocab, key=vocab.__getitem__)
  if any(vocab[piece] != i for i, piece in enumerate(pieces)):
    logging.warning(
      "%s: the vocabulary's ids have holes (a piece twice?); read again, pieces"
      " after them have other ids",
      path,
    )
  with files.atomic_publish(path) as tmp:
    tmp.write_bytes("".join(f"{piece}\n" for piece in pieces).encode())
  return (str(path),)


def _named(
  directory: pathlib.Path, name: str, prefix: str | None
) -> pathlib.Path:
  return directory / (f"{prefix}-{name}" if prefix else name)


def _write_json(path: pathlib.Path, value: Any) -> str:
  with files.atomic_publish(path) as tmp:
    text = json.dumps(
      value, indent=2, sort_keys=True, ensure_ascii=False, default=_plain
    )
    tmp.write_bytes(f"{text}\n".encode())
  return str(path)


def _plain(value: Any) -> Any:
  return str(value) if isinstance(value, AddedToken) else list(value)
