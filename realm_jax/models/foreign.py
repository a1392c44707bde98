"""Other people's parameter names -> the reference's.

Plain BERT checkpoints (a warm start), and the original TensorFlow variables:
ICT's embedder hangs under `module/`, the encoder is a bare `bert/`, the
fine-tuned reader hangs under `reader/`. All become the names of convert.py.
"""

import re
from collections.abc import Iterator, Mapping

import flax.linen as nn
import numpy as np

from realm_jax.models.embedder import RealmEmbedder, RealmScorer
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.open_qa import RealmForOpenQA
from realm_jax.models.reader import RealmReader

State = dict[str, np.ndarray]

_BODY = ("embeddings.", "encoder.", "pooler.")
_OPTIMIZER = re.compile(
  r"(^|/)(adam_[mv]|AdamWeightDecayOptimizer(_1)?|global_step)(/|$)"
)
_READER = {  # of the fine-tuned reader, without its "reader."
  "module.bert.": "realm.",
  "module.cls.": "cls.",
  "dense.": "qa_outputs.dense_intermediate.",
  "dense_1.": "qa_outputs.dense_output.",
  "layer_normalization.": "qa_outputs.layer_normalization.",
}
_EMBEDDER = {  # of the embedder, without its "module."s
  "bert.": "realm.",
  "cls.": "cls.",
  "dense.": "cls.dense.",
  "LayerNorm.": "cls.LayerNorm.",
  "layer_normalization.": "cls.LayerNorm.",  # as newer TensorFlow names it
}
_ENCODER = {"bert.": "realm.", "cls.": "cls."}


def reference_state(
  module: nn.Module, state: Mapping[str, np.ndarray]
) -> State:
  """The tensors of a PyTorch file under the reference's names.

  A plain BERT (names that start with `bert.`, or bare ones) becomes the body
  of each model in `module`. Old names (gamma, beta) are read as new ones, and
  `position_ids`, which is no parameter, is left out.
  """
  named = {}
  for theirs, value in state.items():
    if theirs.endswith("position_ids"):
      continue
    name = theirs.replace(".gamma", ".weight").replace(".beta", ".bias")
    body = name.removeprefix("bert.")
    for prefix in _prefixes(module) if body.startswith(_BODY) else [""]:
      at = f"{prefix}realm.{body}" if body.startswith(_BODY) else name
      named[at] = value
  return named


def from_tensorflow(
  module: nn.Module, variables: Mapping[str, np.ndarray]
) -> State:
  """The variables of an original checkpoint under the reference's names.

  Args:
    module: decides which variables are its own: an embedder's checkpoint also
      holds an encoder or a reader, which are left out.
    variables: TensorFlow name -> array, kernels as [in, out].

  Returns:
    Reference name -> array, kernels as [out, in]; a variable that is of no
    model keeps its name.
  """
  parts: dict[str, State] = {"embedder": {}, "encoder": {}, "reader": {}}
  rest = {}
  for name, value in variables.items():
    if _OPTIMIZER.search(name):
      continue
    theirs, array = _as_torch(name, value)
    part, at = _part_of(theirs)
    (rest if part is None else parts[part])[at] = array
  state = {
    prefix + name: value
    for prefix, part in _wanted_parts(module, parts)
    for name, value in parts[part].items()
  }
  return state | rest


def _as_torch(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
  """`a/layer_0/dense/kernel` -> `a.layer.0.dense.weight`, transposed."""
  *scopes, leaf = name.split("/")
  if leaf == "kernel":
    value = value.T
  leaf = {"kernel": "weight", "gamma": "weight", "beta": "bias"}.get(leaf, leaf)
  leaf = leaf.replace("output_bias", "bias")
  if leaf.endswith("_embeddings"):
    leaf += ".weight"
  scopes = [re.sub(r"^layer_(\d+)$", r"layer.\1", s) for s in scopes]
  return ".".join([*scopes, leaf]), value


def _part_of(name: str) -> tuple[str | None, str]:
  """The model a variable belongs to, and its name there."""
  if name.startswith("reader."):
    part, table, rest = "reader", _READER, name.removeprefix("reader.")
  elif name.startswith("module."):
    part, table, rest = "embedder", _EMBEDDER, re.sub(r"^(module\.)+", "", name)
  else:
    part, table, rest = "encoder", _ENCODER, name
  for theirs, ours in table.items():
    if rest.startswith(theirs):
      return part, ours + rest.removeprefix(theirs)
  return None, name


def _wanted_parts(
  module: nn.Module, parts: dict[str, State]
) -> Iterator[tuple[str, str]]:
  """(prefix, part) of the variables that a module is made of.

  A pretrained reader is the encoder, and a hub module may lack the outer
  scopes of what it holds.
  """
  reader = "reader" if parts["reader"] else "encoder"
  embedder = "embedder" if parts["embedder"] else "encoder"
  if isinstance(module, RealmForOpenQA):
    yield "embedder.", "embedder"
    yield "reader.", reader
  elif isinstance(module, RealmScorer):
    yield "embedder.", embedder
  elif isinstance(module, RealmEmbedder):
    yield "", embedder
  elif isinstance(module, RealmReader):
    yield "", reader
  elif isinstance(module, RealmKnowledgeAugEncoder):
    yield "", "encoder" if parts["encoder"] else "embedder"


def _prefixes(module: nn.Module) -> list[str]:
  """Of the BERT bodies in a module."""
  if isinstance(module, RealmForOpenQA):
    return ["embedder.", "reader."]
  if isinstance(module, RealmScorer):
    separate = [] if module.query_embedder is None else ["query_embedder."]
    return ["embedder.", *separate]
  return [""]
