"""Reading a model's directory: the reference's, a plain BERT's, TensorFlow's."""

import dataclasses
import difflib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from realm_jax.config import FILE, InputError, RealmConfig
from realm_jax.data.realm_tokenizer_fast import RealmTokenizerFast
from realm_jax.formats import safetensors, tf_checkpoint, torch_bin
from realm_jax.models import foreign, whole_state
from realm_jax.models.embedder import RealmEmbedder, RealmScorer
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.open_qa import RealmForOpenQA
from realm_jax.models.reader import RealmReader
from realm_jax.pretrained import show
from realm_jax.retrieval.retriever import RECORDS, RealmRetriever
from realm_jax.types import Array

WEIGHTS = "model.safetensors"
KINDS = {
  "embedder": RealmEmbedder,
  "scorer": RealmScorer,
  "encoder": RealmKnowledgeAugEncoder,
  "reader": RealmReader,
  "openqa": RealmForOpenQA,
}
# What the tensors of a directory may lie in; the first that is there is read.
_READERS = {
  WEIGHTS: safetensors.read_tensors,
  f"{WEIGHTS}.index.json": safetensors.read_tensors,
  "pytorch_model.bin": torch_bin.read_tensors,
  "pytorch_model.bin.index.json": torch_bin.read_tensors,
}


_VOCABULARIES = ("vocab.txt", "tokenizer.json")


@dataclasses.dataclass(frozen=True, repr=False)
class Pretrained:
  """A model with all that was beside it; its repr fits a screen.

  A notebook shows its params as a tree where treescope is installed.

  Attributes:
    config: its sizes.
    module: one of the five models.
    params: of the module.
    tokenizer: None where the directory has none.
    retriever: of the block records; None where there are none.
    block_emb: [N, P] the index of RealmForOpenQA; None where there is none.
    unread: reference name -> tensor, of those that no forward reads;
      save_pretrained writes them back.
    fresh: reference names of params that were drawn, not read.
    origin: "training" and "data" -> what is known of them, name -> value;
      save_pretrained writes it into the card.
  """

  config: RealmConfig
  module: nn.Module
  params: Any
  tokenizer: Any = None
  retriever: RealmRetriever | None = None
  block_emb: Array | None = None
  unread: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  fresh: tuple[str, ...] = ()
  origin: Mapping[str, Mapping[str, Any]] = dataclasses.field(
    default_factory=dict
  )

  def __repr__(self) -> str:
    return show.in_words(self)

  def _repr_html_(self) -> str | None:
    return show.as_html(self.params)


def load_pretrained(
  path: str | os.PathLike,
  *,
  kind: str | None = None,
  partial: bool = False,
  seed: int = 0,
  **overrides: Any,
) -> Pretrained:
  """Loads a model from a directory or from a checkpoint of TensorFlow's.

  Args:
    path: a directory with config.json and model.safetensors or
      pytorch_model.bin (one file or shards); or one of TensorFlow's
      checkpoints: its prefix, its directory, or that of a hub module.
    kind: "embedder", "scorer", "encoder", "reader" or "openqa"; None: what
      `architectures` in config.json says.
    partial: whether tensors may be missing, which are then drawn, or be left
      over: a plain BERT as a warm start.
    seed: of what is drawn.
    **overrides: values that replace those of config.json.

  Raises:
    InputError: no model here, or none of the five; or tensors that are
      missing, left over or of other shapes, all listed by name.
  """
  path = pathlib.Path(path)
  folder = path if path.is_dir() else path.parent
  if folder != path and not path.with_name(f"{path.name}.index").exists():
    raise InputError(f"{path}: no such directory, nor TensorFlow's checkpoint")
  config = _read_config(folder, kind, overrides)
  module = KINDS[kind_of(config, kind, folder)](config)
  tensors, renamed = _read_tensors(path)
  if isinstance(module, RealmScorer) and _has_query_embedder(tensors):
    module = RealmScorer(config, RealmEmbedder(config))
  state = renamed(module, tensors)
  block_emb = None
  if isinstance(module, RealmForOpenQA):
    block_emb = _index(state.pop("block_emb", None), config, path)
  try:
    params, unread, fresh = whole_state.read_state(
      module, state, partial=partial, seed=seed
    )
  except InputError as e:
    raise InputError(f"{path}: {e}") from e
  params = jax.tree.map(jnp.array, params)  # a copy: files may change
  return Pretrained(
    config, module, params, *read_texts(folder), block_emb, unread, fresh
  )


def read_texts(folder: pathlib.Path) -> tuple[Any, RealmRetriever | None]:
  """Tokenizer and retriever of a directory; None where it has none."""
  if not any((folder / name).exists() for name in _VOCABULARIES):
    return None, None
  tokenizer = RealmTokenizerFast.from_pretrained(folder)
  if not (folder / RECORDS).exists():
    return tokenizer, None
  return tokenizer, RealmRetriever.from_pretrained(folder, tokenizer=tokenizer)


def _read_config(folder, kind, overrides) -> RealmConfig:
  """config.json with overrides; a checkpoint of TensorFlow's has none."""
  file = folder / FILE
  if not file.exists() and kind is None:
    raise InputError(
      f"{file}: no such file: wanted a model's directory; of a TensorFlow"
      f" checkpoint, name the kind: {', '.join(KINDS)}"
    )
  config = RealmConfig.from_pretrained(file) if file.exists() else RealmConfig()
  for name, value in overrides.items():
    if not hasattr(config, name):
      near = difflib.get_close_matches(name, config.to_dict(), 3, 0)
      raise InputError(
        f"{name}={value!r}: no such key of a config; nearest: {', '.join(near)}"
      )
  return RealmConfig.from_dict(config.to_dict(), **overrides)


def kind_of(config: RealmConfig, kind: str | None, folder: Any) -> str:
  """The kind that is named, or else that of config.json's `architectures`."""
  names = {cls.__name__: name for name, cls in KINDS.items()}
  if kind is not None:
    kind = names.get(kind, kind)
    if kind in KINDS:
      return kind
    raise InputError(f"kind={kind!r}: wanted one of {', '.join(KINDS)}")
  for name in config.architectures or ():
    if name in names:
      return names[name]
  raise InputError(
    f"{folder / FILE}: architectures={config.architectures}: wanted one of"
    f" {', '.join(names)}; or name the kind, as in kind='embedder', and for a"
    " warm start from a plain BERT also partial=True"
  )


def _read_tensors(path: pathlib.Path) -> tuple[dict, Callable]:
  """The tensors of a model, and what gives them the reference's names."""
  for name, read in _READERS.items():
    if (path / name).exists():
      return read(path / name), foreign.reference_state
  try:
    return tf_checkpoint.read_variables(path), foreign.from_tensorflow
  except InputError as e:
    raise InputError(
      f"{path}: none of {', '.join(_READERS)} here; as TensorFlow's: {e}"
    ) from e


def _has_query_embedder(tensors: Mapping[str, np.ndarray]) -> bool:
  """Whether a scorer's file has a query embedder that is not the other one."""
  theirs = {n: v for n, v in tensors.items() if n.startswith("query_embedder.")}
  own = (tensors.get(n.removeprefix("query_")) for n in theirs)
  pairs = zip(theirs.values(), own, strict=True)
  return not all(np.array_equal(a, b) for a, b in pairs)


def _index(block_emb, config: RealmConfig, path) -> Array | None:
  if block_emb is None:
    return None
  wanted = (config.num_block_records, config.retriever_proj_size)
  if block_emb.shape != wanted:
    raise InputError(
      f"{path}: block_emb is {block_emb.shape}, wanted {wanted}: give"
      f" num_block_records={len(block_emb)}, or the config it was made with"
    )
  return jnp.array(block_emb, jnp.float32)
