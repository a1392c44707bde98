"""Parameter names: the reference's torch state <-> our Linen tree.

One table a module, read both ways. torch keeps a dense kernel as [out, in], we
as [in, out]; our query, key and value kernels are one array. The reference
stores some tensors that no forward reads, and some under two names; they are
in no tree of ours, but a reader of reference files has to know them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from realm_jax.config import InputError, RealmConfig
from realm_jax.models.embedder import RealmEmbedder, RealmScorer
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.open_qa import RealmForOpenQA
from realm_jax.models.reader import RealmReader

State = dict[str, np.ndarray]  # reference name -> array

# How one array of ours is made of the reference's, and taken apart again.
_IN = {
  "same": lambda parts: parts[0],
  "kernel": lambda parts: parts[0].T,
  "kernels": lambda parts: np.stack([p.T for p in parts], axis=1),
  "biases": np.stack,
}
_OUT = {
  "same": lambda value, n: [value],
  "kernel": lambda value, n: [value.T],
  "kernels": lambda value, n: [value[:, i].T for i in range(n)],
  "biases": lambda value, n: list(value),
}


def to_torch_state(module: nn.Module, params_or_grads: Any) -> State:
  """The reference's names for a module's params, or for their gradients.

  Args:
    module: one of the five models.
    params_or_grads: a tree as `module.init(...)["params"]`.

  Returns:
    Reference name -> NumPy array in torch's layout; tied tensors under each
    of their names.

  Raises:
    InputError: the tree is not this module's.
  """
  state = {}
  for names, path, how in _table(module):
    value = np.asarray(_get(params_or_grads, path))
    state.update(zip(names, _OUT[how](value, len(names)), strict=True))
  tied = aliases(module)
  return state | {a: state[of] for a, of in tied.items() if of in state}


def from_torch_state(module: nn.Module, state: Mapping[str, Any]) -> dict:
  """The params of a module from the reference's state, the inverse.

  Raises:
    KeyError: a tensor is missing; names it.
  """
  tree: dict = {}
  for names, path, how in _table(module):
    *parents, leaf = path.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[leaf] = _IN[how]([np.asarray(state[name]) for name in names])
  return tree


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
  """Reference name -> shape of the tensors that make up the params."""
  tree = jax.eval_shape(lambda: fresh_params(module, jax.random.key(0)))
  nothing = np.zeros((), np.float32)  # broadcast: takes no memory
  blank = jax.tree.map(lambda x: np.broadcast_to(nothing, x.shape), tree)
  state, tied = to_torch_state(module, blank), aliases(module)
  return {k: v.shape for k, v in state.items() if k not in tied}


def unread_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
  """Reference name -> shape of what it stores and no forward reads."""
  shapes = {}
  for prefix, part in _parts(module):
    config = part.config
    if not isinstance(part, RealmEmbedder):
      shapes |= _pooler_shapes(config, prefix)
    if not isinstance(part, RealmKnowledgeAugEncoder):
      shapes |= _mlm_head_shapes(config, prefix)
  return shapes


def aliases(module: nn.Module) -> dict[str, str]:
  """Second name -> first name of tensors that the reference ties."""
  tied = {}
  for prefix, part in _parts(module):
    head = f"{prefix}cls.predictions"
    tied[f"{head}.decoder.bias"] = f"{head}.bias"
    if isinstance(part, RealmKnowledgeAugEncoder):
      table = "realm.embeddings.word_embeddings.weight"
      tied[f"{head}.decoder.weight"] = prefix + table
  if isinstance(module, RealmScorer) and module.query_embedder is None:
    embedder = RealmEmbedder(module.config)
    names = [n for row in _table(embedder) for n in row[0]]
    names += [*unread_shapes(embedder), *aliases(embedder)]
    tied |= {f"query_embedder.{n}": f"embedder.{n}" for n in names}
  return tied


def fresh_params(module: nn.Module, rng: jax.Array) -> dict:
  """New params of any of the five models, with inputs of its own."""
  config = module.config
  if isinstance(module, RealmForOpenQA) and module.reader_config:
    config = module.reader_config
  tokens = jnp.zeros((config.num_candidates, config.max_span_width), jnp.int32)
  given: dict[str, Any] = {"input_ids": tokens[:1]}
  if isinstance(module, RealmScorer):
    given["candidate_input_ids"] = tokens[None]
  if isinstance(module, RealmReader):
    given |= {
      "token_type_ids": tokens[:1],
      "block_mask": tokens[:1],
      "relevance_score": jnp.zeros(1),
    }
  return module.init(rng, **given)["params"]


def _parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
  """(prefix of the names, model) of the models that a module is made of."""
  if isinstance(module, RealmScorer):
    yield "embedder.", RealmEmbedder(module.config)
    if module.query_embedder is not None:
      yield "query_embedder.", module.query_embedder
  elif isinstance(module, RealmForOpenQA):
    yield "embedder.", RealmEmbedder(module.config)
    yield "reader.", RealmReader(module.reader_config or module.config)
  elif isinstance(
    module, (RealmEmbedder, RealmKnowledgeAugEncoder, RealmReader)
  ):
    yield "", module
  else:
    raise InputError(f"{module!r}: wanted one of REALM's five models")


def _table(module: nn.Module) -> Iterator[tuple[list[str], str, str]]:
  """(reference names, our path, how) of every array of the params."""
  for prefix, part in _parts(module):
    for names, path, how in _rows(part):
      ours = prefix.replace(".", "/") + path
      yield [prefix + name for name in names], ours, how


def _rows(part):
  yield from _bert(part.config.num_hidden_layers)
  if isinstance(part, RealmEmbedder):
    if part.config.pooling == "cls":
      yield from _dense("realm.pooler.dense", "pooler")
    yield from _dense("cls.dense", "dense")
    yield from _norm("cls.LayerNorm", "norm")
  elif isinstance(part, RealmKnowledgeAugEncoder):
    yield from _dense("cls.predictions.transform.dense", "cls/dense")
    yield from _norm("cls.predictions.transform.LayerNorm", "cls/norm")
    yield ["cls.predictions.bias"], "cls/bias", "same"
  else:
    for name in ("dense_intermediate", "dense_output"):
      yield from _dense(f"qa_outputs.{name}", f"qa_outputs/{name}")
    yield from _norm("qa_outputs.layer_normalization", "qa_outputs/norm")


def _bert(num_layers):
  for table in ("word", "position", "token_type"):
    name = f"embeddings.{table}_embeddings"
    ours = f"realm/embeddings/{table}_embeddings/embedding"
    yield [f"realm.{name}.weight"], ours, "same"
  yield from _norm("realm.embeddings.LayerNorm", "realm/embeddings/norm")
  for i in range(num_layers):
    theirs, ours = f"realm.encoder.layer.{i}", f"realm/layers_{i}"
    qkv = [f"{theirs}.attention.self.{n}" for n in ("query", "key", "value")]
    at = f"{ours}/attention"
    yield [f"{n}.weight" for n in qkv], f"{at}/qkv_kernel", "kernels"
    yield [f"{n}.bias" for n in qkv], f"{at}/qkv_bias", "biases"
    yield from _dense(f"{theirs}.attention.output.dense", f"{at}/out")
    yield from _norm(
      f"{theirs}.attention.output.LayerNorm", f"{ours}/attention_norm"
    )
    yield from _dense(f"{theirs}.intermediate.dense", f"{ours}/intermediate")
    yield from _dense(f"{theirs}.output.dense", f"{ours}/output")
    yield from _norm(f"{theirs}.output.LayerNorm", f"{ours}/output_norm")


def _dense(theirs, ours):
  yield [f"{theirs}.weight"], f"{ours}/kernel", "kernel"
  yield [f"{theirs}.bias"], f"{ours}/bias", "same"


def _norm(theirs, ours):
  yield [f"{theirs}.weight"], f"{ours}/scale", "same"
  yield [f"{theirs}.bias"], f"{ours}/bias", "same"


def _pooler_shapes(config: RealmConfig, prefix: str):
  d, name = config.hidden_size, f"{prefix}realm.pooler.dense"
  return {f"{name}.weight": (d, d), f"{name}.bias": (d,)}


def _mlm_head_shapes(config: RealmConfig, prefix: str):
  d, v, name = config.hidden_size, config.vocab_size, f"{prefix}cls.predictions"
  return {
    f"{name}.bias": (v,),
    f"{name}.transform.dense.weight": (d, d),
    f"{name}.transform.dense.bias": (d,),
    f"{name}.transform.LayerNorm.weight": (d,),
    f"{name}.transform.LayerNorm.bias": (d,),
    f"{name}.decoder.weight": (v, d),
  }


def _get(tree, path):
  for name in path.split("/"):
    if name not in tree:
      raise InputError(f"no {path} in this tree: it is not of this module")
    tree = tree[name]
  return tree
