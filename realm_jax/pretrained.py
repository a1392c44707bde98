"""Models from a directory and back: the reference's files, and others'.

The one place where configuration, parameters, tokenizer, block records and
index meet.
"""

import dataclasses
import difflib
import fnmatch
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from realm_jax import files
from realm_jax.config import FILE, InputError, RealmConfig
from realm_jax.data.realm_tokenizer import RealmTokenizerFast
from realm_jax.formats import safetensors, tensorflow, torch_bin
from realm_jax.models import foreign, whole_state
from realm_jax.models.embedder import RealmEmbedder, RealmScorer
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.open_qa import RealmForOpenQA
from realm_jax.models.reader import RealmReader
from realm_jax.retrieval import answering
from realm_jax.retrieval.retriever import RECORDS, RealmRetriever
from realm_jax.types import Array, Evidence, RealmForOpenQAOutput

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
_MODEL_FILES = (
  FILE, "model*.safetensors", "pytorch_model*.bin", "*.index.json", RECORDS,
  "vocab.txt", "tokenizer.json", "tokenizer_config.json",
  "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A model with all that was beside it.

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
  """

  config: RealmConfig
  module: nn.Module
  params: Any
  tokenizer: Any = None
  retriever: RealmRetriever | None = None
  block_emb: Array | None = None
  unread: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  fresh: tuple[str, ...] = ()


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
  config = _read_config(folder, kind, overrides)
  module = KINDS[_kind_of(config, kind, folder)](config)
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
  tokenizer = retriever = None
  if any((folder / name).exists() for name in ("vocab.txt", "tokenizer.json")):
    tokenizer = RealmTokenizerFast.from_pretrained(folder)
    if (folder / RECORDS).exists():
      retriever = RealmRetriever.from_pretrained(folder, tokenizer=tokenizer)
  params = jax.tree.map(jnp.asarray, params)
  return Pretrained(
    config, module, params, tokenizer, retriever, block_emb, unread, fresh
  )


def save_pretrained(
  path: str | os.PathLike,
  pretrained: Pretrained,
  *,
  shard_bytes: int | None = None,
) -> None:
  """Publishes a directory that the reference and load_pretrained read.

  A model that is there already is replaced, whole.

  Args:
    path: the directory.
    pretrained: what to write.
    shard_bytes: bytes of weights a file; None: all in one.

  Raises:
    InputError: the directory holds files that are no model's, or the model is
      one that the reference's files can't hold.
  """
  path = pathlib.Path(path)
  _check_place(path)
  p, config = pretrained, _config_to_save(pretrained)
  state = whole_state.whole_state(p.module, p.params, p.unread)
  if p.block_emb is not None:
    state["block_emb"] = np.asarray(p.block_emb)
  with files.atomic_publish(path) as tmp:
    config.save_pretrained(tmp)
    safetensors.write_tensors(tmp / WEIGHTS, state, shard_bytes)
    if p.retriever is not None:
      p.retriever.save_pretrained(tmp)
    if p.tokenizer is not None:
      p.tokenizer.save_pretrained(tmp)


def open_qa(
  pretrained: Pretrained,
  question_batch: Mapping[str, Any],
  answer_ids: Any = None,
  train: bool = False,
  *,
  rng: Array | None = None,
  mesh: Mesh | None = None,
) -> RealmForOpenQAOutput:
  """Answers questions: embed, search the index, read the best blocks.

  Args:
    pretrained: a RealmForOpenQA with retriever and block_emb.
    question_batch: what the tokenizer returned: input_ids [B, T], and
      attention_mask, token_type_ids.
    answer_ids: wordpieces of each answer of the one question; for B questions
      a list of such lists. With them there are losses.
    train: finds searcher_beam_size blocks, not reader_beam_size.
    rng: key of dropout; None for no dropout.
    mesh: over which the rows of block_emb lie, if they do.

  Returns:
    For one question fields as in the reference, without an axis B. Losses are
    (). For gradients, differentiate `module.apply(..., evidence=...)` with
    what `find_evidence` returns.

  Raises:
    InputError: no RealmForOpenQA, or one without retriever or index.
  """
  evidence = find_evidence(
    pretrained, question_batch, answer_ids, train, mesh=mesh
  )
  question = answering.question_inputs(question_batch)
  p = pretrained
  return answering.answer(p.module, p.params, question, evidence, rng)


def find_evidence(
  pretrained: Pretrained,
  question_batch: Mapping[str, Any],
  answer_ids: Any = None,
  train: bool = False,
  *,
  mesh: Mesh | None = None,
) -> Evidence:
  """The search of `open_qa`: what RealmForOpenQA's forward takes beside the
  questions. Arguments and errors as there."""
  p, config = pretrained, pretrained.config
  if not isinstance(p.module, RealmForOpenQA):
    raise InputError(f"{type(p.module).__name__}: wanted a RealmForOpenQA")
  if p.retriever is None or p.block_emb is None:
    raise InputError(
      "open_qa needs a retriever and block_emb, which this model lacks: load a"
      f" directory with {RECORDS} and an index"
    )
  return answering.find_evidence(
    p.module,
    p.params,
    p.block_emb,
    p.retriever,
    answering.question_inputs(question_batch),
    answer_ids,
    beam=config.searcher_beam_size if train else config.reader_beam_size,
    mesh=mesh,
  )


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


def _kind_of(config: RealmConfig, kind: str | None, folder) -> str:
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
  prefix = tensorflow.find_checkpoint(path)
  if prefix is None:
    raise InputError(
      f"{path}: no weights here: wanted {', '.join(_READERS)}, or a checkpoint"
      " of TensorFlow's"
    )
  return tensorflow.read_variables(prefix), foreign.from_tensorflow


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
  return jnp.asarray(block_emb, jnp.float32)


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
  config = RealmConfig.from_dict(config.to_dict(), **more)
  config.to_json_string()  # what can't be written is refused here
  return config


def _check_place(path: pathlib.Path) -> None:
  """A directory is replaced as a whole, so it may hold nothing else."""
  if path.exists() and not path.is_dir():
    raise InputError(f"{path}: a file: wanted a directory")
  names = [p.name for p in path.iterdir()] if path.exists() else []
  for name in names:
    if not any(fnmatch.fnmatch(name, pattern) for pattern in _MODEL_FILES):
      raise InputError(
        f"{path} also holds {name}, and would be replaced: give a new directory"
      )
