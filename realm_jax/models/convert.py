"""Parameter names: the reference's torch state <-> our Linen tree.

One table a module, read both ways. torch keeps a dense kernel as [out, in], we
as [in, out]; our query, key and value kernels are one array.
"""

import numpy as np

_NORM = {"weight": "scale", "bias": "bias"}


def from_torch_state(
  state: dict[str, np.ndarray], num_layers: int, model: str
) -> dict:
  """Builds the params of `model` from a reference state_dict of numpy arrays.

  Args:
    state: reference name -> array.
    num_layers: of the BERT body.
    model: "embedder", "encoder" or "reader"; with a prefix such as
      "embedder." stripped by the caller.

  Raises:
    KeyError: a tensor is missing; names it.
  """
  tree: dict = {}
  for name, path, how in _table(num_layers, model):
    parts = [state[n] for n in name]
    _set(tree, path, _IN[how](parts))
  return tree


def to_torch_state(params: dict, num_layers: int, model: str) -> dict:
  """The inverse of `from_torch_state`: reference name -> numpy array."""
  state = {}
  for name, path, how in _table(num_layers, model):
    value = np.asarray(_get(params, path))
    state.update(zip(name, _OUT[how](value, len(name)), strict=True))
  return state


_IN = {
  "same": lambda parts: parts[0],
  "kernel": lambda parts: np.concatenate([p.T for p in parts], axis=1),
  "bias": np.concatenate,
}
_OUT = {
  "same": lambda value, n: [value],
  "kernel": lambda value, n: [p.T for p in np.split(value, n, axis=1)],
  "bias": np.split,
}


def _dense(theirs, ours):
  yield [f"{theirs}.weight"], f"{ours}/kernel", "kernel"
  yield [f"{theirs}.bias"], f"{ours}/bias", "bias"


def _norm(theirs, ours):
  for their, our in _NORM.items():
    yield [f"{theirs}.{their}"], f"{ours}/{our}", "same"


def _bert(num_layers):
  for table in ("word", "position", "token_type"):
    yield (
      [f"realm.embeddings.{table}_embeddings.weight"],
      f"realm/embeddings/{table}_embeddings/embedding",
      "same",
    )
  yield from _norm("realm.embeddings.LayerNorm", "realm/embeddings/norm")
  for i in range(num_layers):
    theirs, ours = f"realm.encoder.layer.{i}", f"realm/layers_{i}"
    qkv = [f"{theirs}.attention.self.{n}" for n in ("query", "key", "value")]
    at = f"{ours}/attention"
    yield [f"{n}.weight" for n in qkv], f"{at}/qkv_kernel", "kernel"
    yield [f"{n}.bias" for n in qkv], f"{at}/qkv_bias", "bias"
    yield from _dense(f"{theirs}.attention.output.dense", f"{at}/out")
    yield from _norm(
      f"{theirs}.attention.output.LayerNorm", f"{ours}/attention_norm"
    )
    yield from _dense(f"{theirs}.intermediate.dense", f"{ours}/intermediate")
    yield from _dense(f"{theirs}.output.dense", f"{ours}/output")
    yield from _norm(f"{theirs}.output.LayerNorm", f"{ours}/output_norm")


def _table(num_layers, model):
  yield from _bert(num_layers)
  if model == "embedder":
    yield from _dense("realm.pooler.dense", "pooler")
    yield from _dense("cls.dense", "dense")
    yield from _norm("cls.LayerNorm", "norm")
  elif model == "encoder":
    yield from _dense("cls.predictions.transform.dense", "cls/dense")
    yield from _norm("cls.predictions.transform.LayerNorm", "cls/norm")
    yield ["cls.predictions.bias"], "cls/bias", "same"
  elif model == "reader":
    head = "qa_outputs"
    yield from _dense(
      f"{head}.dense_intermediate", f"{head}/dense_intermediate"
    )
    yield from _norm(f"{head}.layer_normalization", f"{head}/norm")
    yield from _dense(f"{head}.dense_output", f"{head}/dense_output")
  else:
    raise ValueError(f"no table for model {model!r}")


def _set(tree, path, value):
  *parents, leaf = path.split("/")
  for parent in parents:
    tree = tree.setdefault(parent, {})
  tree[leaf] = value


def _get(tree, path):
  for name in path.split("/"):
    tree = tree[name]
  return tree
