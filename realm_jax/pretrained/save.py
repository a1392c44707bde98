"""Writing a model's directory, which the reference reads back."""

import fnmatch
import os
import pathlib
from typing import Any

import numpy as np

from realm_jax import files
from realm_jax.config import FILE, InputError, RealmConfig
from realm_jax.formats import safetensors
from realm_jax.models import whole_state
from realm_jax.pretrained import card
from realm_jax.pretrained.load import WEIGHTS, Pretrained
from realm_jax.retrieval.retriever import RECORDS

_MODEL_FILES = (
  FILE, "model*.safetensors", "pytorch_model*.bin", "*.index.json", RECORDS,
  "vocab.txt", "tokenizer.json", "tokenizer_config.json",
  "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip


def save_pretrained(
  path: str | os.PathLike,
  pretrained: Pretrained,
  *,
  shard_bytes: int | None = None,
) -> None:
  """Publishes a directory that the reference and load_pretrained read.

  README.md is its card: sizes, and what the run says of training and data.
  A model that is there already is replaced, whole. One whose config has fields
  of ours (a pooling, say) is another model to the reference.

  Args:
    path: the directory.
    pretrained: what to write.
    shard_bytes: bytes of weights a file; None: all in one.

  Raises:
    InputError: the directory holds files that are no model's, or the model is
      one that the reference's files can't hold.
  """
  path = pathlib.Path(path)
  check_place(path)
  p = pretrained
  state = whole_state.whole_state(p.module, p.params, p.unread)
  if p.block_emb is not None:
    state["block_emb"] = np.asarray(p.block_emb)
  with files.atomic_publish(path) as tmp:
    write_all_but_weights(tmp, p)
    safetensors.write_tensors(tmp / WEIGHTS, state, shard_bytes)


def write_all_but_weights(
  directory: pathlib.Path, pretrained: Pretrained
) -> None:
  """Writes config.json, the card, the tokenizer's files, the block records."""
  config = _config_to_save(pretrained)
  config.save_pretrained(directory)
  text = card.card(pretrained, config)
  (directory / card.FILE).write_text(text, encoding="utf-8")
  if pretrained.retriever is not None:
    pretrained.retriever.save_pretrained(directory)
  if pretrained.tokenizer is not None:
    pretrained.tokenizer.save_pretrained(directory)


def _config_to_save(pretrained: Pretrained) -> RealmConfig:
  """The one config of a saved model; InputError if there are two."""
  module, config = pretrained.module, pretrained.config
  parts = [module.config, getattr(module, "reader_config", None)]
  parts.append(getattr(getattr(module, "query_embedder", None), "config", None))
  if any(part not in (None, config) for part in parts):
    raise InputError(
      f"{type(module).__name__} has parts of different configs, and a"
      " directory holds one: save its parts one by one"
    )
  more: dict[str, Any] = {"architectures": [type(module).__name__]}
  if pretrained.block_emb is not None:
    more["num_block_records"] = len(pretrained.block_emb)
  return RealmConfig.from_dict(config.to_dict(), **more)


def check_place(path: pathlib.Path) -> None:
  """A directory is replaced as a whole, so it may hold nothing else."""
  if path.exists() and not path.is_dir():
    raise InputError(f"{path}: a file: wanted a directory")
  names = [p.name for p in path.iterdir()] if path.exists() else []
  for name in names:
    if name == card.FILE and card.is_ours(path / name):
      continue
    if not any(fnmatch.fnmatch(name, pattern) for pattern in _MODEL_FILES):
      raise InputError(
        f"{path} also holds {name}, and would be replaced: give a new directory"
      )
