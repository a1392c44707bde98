"""Where a run's params come from: fresh ones, or those of other runs."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from realm_jax.config import InputError
from realm_jax.train import checkpoint
from realm_jax.train.corpus import Corpus

# Part of a run's params -> the field of config.init that names another run,
# and the parts of that run that may serve, first found. A reader starts from
# the body of a pre-trained encoder; its span head is new.
_SOURCES = {
  "embedder": ("embedder", ("embedder",)),
  "encoder": ("encoder", ("encoder",)),
  "reader": ("encoder", ("reader", "encoder")),
}

# rng -> the fresh params of one model.
InitFn = Callable[[jax.Array], dict]


def init_fn(module, *args, method=None) -> InitFn:
  """How one model's params are made; args as its __call__ or `method`."""
  return lambda rng: module.init(rng, *args, method=method)["params"]


def init_shapes(init_fns: Mapping[str, InitFn]) -> dict:
  """The shapes of all parts' params."""
  rng = jax.random.key(0)
  return {part: jax.eval_shape(f, rng) for part, f in init_fns.items()}


def init_params(
  init_fns: Mapping[str, InitFn], config: ConfigDict, corpus: Corpus
) -> dict:
  """Fresh params of all parts, or those of the runs that config.init names.

  Args:
    init_fns: by part, a key of _SOURCES; part i has the seed config.seed + i.
    config: seed and init.
    corpus: this run's data.

  Raises:
    InputError: another tokenizer, no such part, or other sizes.
  """
  params = {}
  for i, (part, init_fn) in enumerate(init_fns.items()):
    field, parts = _SOURCES[part]
    params[part] = warm_start(
      init_fn,
      config.seed + i,
      f"init.{field}",
      config.init[field],
      corpus,
      parts,
    )
  return params


def warm_start(
  init_fn: InitFn,
  seed: int,
  name: str,
  workdir: str,
  corpus: Corpus,
  parts: Sequence[str],
) -> dict:
  """Fresh params, or those of another run where it has them.

  Args:
    init_fn: of one model.
    seed: of the fresh params.
    name: the config field that names the run, for messages.
    workdir: the other run; "" for fresh params only.
    corpus: this run's data.
    parts: subtrees of the other run's params that may serve, first found.

  Returns:
    The model's params; a top-level subtree that the other run has is its.

  Raises:
    InputError: another tokenizer, no such part, or other sizes.
  """
  shapes = jax.eval_shape(init_fn, jax.random.key(seed))
  taken = _taken(shapes, name, workdir, corpus, parts) if workdir else {}
  missing = [key for key in shapes if key not in taken]

  @jax.jit  # what is taken is neither computed nor compiled
  def fresh(rng):
    params = init_fn(rng)
    return {key: params[key] for key in missing}

  return {**(fresh(jax.random.key(seed)) if missing else {}), **taken}


def _taken(shapes, name, workdir, corpus, parts) -> dict:
  """The subtrees of another run that go by the names of `shapes`."""
  params, meta, _ = checkpoint.restore_params(workdir)
  if meta["tokenizer_hash"] != corpus.tokenizer.hash:
    raise InputError(
      f"config {name}={workdir} was trained with tokenizer"
      f" {meta['tokenizer_hash'][:12]}, but {corpus.data_dir}/tokenizer is"
      f" {corpus.tokenizer.hash[:12]}: use the data it was trained on"
    )
  part = next((params[p] for p in parts if p in params), None)
  if part is None:
    raise InputError(
      f"config {name}={workdir}: its checkpoint has {', '.join(params)}, wanted"
      f" {' or '.join(parts)}"
    )
  taken = {key: part[key] for key in shapes if key in part}
  _same_shapes({key: shapes[key] for key in taken}, taken, name, workdir)
  return taken


def _same_shapes(fresh, taken, name, workdir):
  ours = dict(jax.tree_util.tree_leaves_with_path(fresh))
  theirs = dict(jax.tree_util.tree_leaves_with_path(taken))
  for path in ours.keys() | theirs.keys():
    a, b = (np.shape(t[path]) if path in t else None for t in (ours, theirs))
    if a != b:
      where = jax.tree_util.keystr(path, simple=True, separator="/")
      raise InputError(
        f"config {name}={workdir}: {where} is {b} there and {a} here: give both"
        " runs the same sizes"
      )
