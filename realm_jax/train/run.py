"""What every run starts from: its data on the mesh, its models, its params.

The assembly that ICT, pre-training, fine-tuning and building an index have in
common, so that each of them reads as what it does.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from realm_jax import sharding
from realm_jax.config import InputError, RealmConfig
from realm_jax.data.blocks import BlockStore
from realm_jax.data.tokenizer import Tokenizer, load_tokenizer
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.retrieval import index as versions
from realm_jax.retrieval import journal, manifest, refresh
from realm_jax.retrieval.candidates import Specials
from realm_jax.retrieval.forward import ALL, Fill, OpenQa, Realm, Retrieval
from realm_jax.train import checkpoint, loop, metrics, optimizer
from realm_jax.train.state import TrainState
from realm_jax.types import BlockTokens, Inputs

# A run's evaluators: fn(state, index) -> pairs of (name, value).
Evaluators = Sequence[tuple[str, Callable[[Any, Any], Any]]]


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Prepared data, opened, and the mesh it is used on.

  Attributes:
    data_dir: what prepare_data wrote.
    tokenizer: of queries and blocks.
    store: the blocks.
    specials: ids of the special wordpieces.
    mesh: all devices of the run.
  """

  data_dir: pathlib.Path
  tokenizer: Tokenizer
  store: BlockStore
  specials: Specials
  mesh: Mesh

  @property
  def meta(self) -> dict[str, str]:
    """What binds checkpoints and index versions to this data."""
    return {
      "tokenizer_hash": self.tokenizer.hash,
      "corpus_hash": self.store.meta["corpus_hash"],
    }

  def tokens(self, block_len: int, slice_size: int) -> BlockTokens:
    """The blocks' tokens, rows over the mesh, padded to whole slices."""
    rows = refresh.padded_rows(len(self.store), self.mesh.size, slice_size)
    tokens = self.store.device_tokens(block_len, rows)
    return jax.tree.map(lambda x: sharding.shard_rows(x, self.mesh), tokens)


def data_dir(config: ConfigDict, workdir: str | pathlib.Path) -> pathlib.Path:
  """config.data.dir, else WORKDIR/data, else the data beside WORKDIR."""
  if config.data.dir:
    return pathlib.Path(config.data.dir)
  inside = pathlib.Path(workdir) / "data"
  beside = pathlib.Path(workdir).parent / "data"
  if (beside / "manifest.json").exists() and not inside.exists():
    return beside
  return inside


def open_corpus(config: ConfigDict, workdir: str | pathlib.Path) -> Corpus:
  """Opens the prepared data of a run.

  Raises:
    InputError: there is none, or its parts don't belong together.
  """
  path = data_dir(config, workdir)
  if not (path / "manifest.json").exists():
    raise InputError(
      f"{path}: no prepared data: run experiments.prepare_data first, or name"
      " its directory with --config.data.dir=DIR"
    )
  tokenizer = load_tokenizer(path / "tokenizer")
  store = BlockStore(path / "blocks")
  if store.meta["tokenizer_hash"] != tokenizer.hash:
    raise InputError(
      f"{path}/blocks was made with tokenizer"
      f" {store.meta['tokenizer_hash'][:12]}, but {path}/tokenizer is"
      f" {tokenizer.hash[:12]}: run experiments.prepare_data again"
    )
  mesh = sharding.make_mesh(config.mesh.data)
  return Corpus(path, tokenizer, store, Specials.of(tokenizer), mesh)


def model_config(sizes: ConfigDict, corpus: Corpus, **more) -> RealmConfig:
  """RealmConfig of a config's section; the vocabulary is the tokenizer's."""
  return RealmConfig.from_dict(
    {
      **sizes.to_dict(),
      "vocab_size": corpus.tokenizer.vocab_size,
      "pad_token_id": corpus.tokenizer.pad_id,
      "num_block_records": len(corpus.store),
      **more,
    }
  )


def check_lengths(config: ConfigDict, corpus: Corpus) -> None:
  """Refuses sequences that are longer than the position tables, too many
  candidates, no room for tokens, and batches that the devices do not divide.

  Raises:
    InputError: names the field, its value and the mend.
  """
  if config.query_len >= config.joint_len:
    raise InputError(
      f"config query_len={config.query_len} leaves no room for a body in"
      f" joint_len={config.joint_len}; make joint_len larger"
    )
  # a body that does not follow its query at once begins at position query_len
  joint = ("joint_len",) if config.contiguous else ("query_len", "joint_len")
  for names, section in (
    (("block_len",), "embedder"),
    (("query_len",), "embedder"),
    (joint, "encoder"),
  ):
    most = config[section].max_position_embeddings
    if sum(config[name] for name in names) > most:
      lengths = " + ".join(f"{name}={config[name]}" for name in names)
      raise InputError(
        f"config {lengths} is longer than the model's positions:"
        f" {section}.max_position_embeddings={most}; make one fit the other"
      )
  for name in ("num_candidates", "searcher_beam_size"):
    if name in config and config[name] > len(corpus.store):
      raise InputError(
        f"config {name}={config[name]}, but {corpus.data_dir}/blocks has"
        f" {len(corpus.store)} blocks: give --config.{name}="
        f"{len(corpus.store)} or less"
      )
  for name, share in config.fill.items():
    if not 0 < share <= 1:
      raise InputError(
        f"config fill.{name}={share}: wanted a share over 0 and at most 1; 1"
        " computes all padding"
      )
  if config.train.batch_size % corpus.mesh.size:
    raise InputError(
      f"config train.batch_size={config.train.batch_size} does not split over"
      f" {corpus.mesh.size} devices: take a multiple of them, or fewer devices"
      " with --config.mesh.data"
    )


def make_retrieval(
  config: ConfigDict, corpus: Corpus, fill: Fill = ALL
) -> Retrieval:
  """The search of a run; computes all padding, unless `fill` spares it."""
  return Retrieval(
    embedder=RealmEmbedder(model_config(config.embedder, corpus)),
    specials=corpus.specials,
    num_blocks=len(corpus.store),
    score_scale=config.score_scale,
    mesh=corpus.mesh,
    frozen=not config.train.retriever_lr_scale,
    fill=fill,
  )


def unpadded(model: Realm | OpenQa, config: ConfigDict) -> Realm | OpenQa:
  """The same forward pass, with `config.fill` of a batch's places computed."""
  fill = Fill(**config.fill)
  retrieval = dataclasses.replace(model.retrieval, fill=fill)
  return dataclasses.replace(model, retrieval=retrieval)


def make_refresher(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  corpus: Corpus,
  retrieval: Retrieval,
  tokens: BlockTokens,
  probe: Inputs,
) -> refresh.Refresher:
  """What keeps the run's index fresh."""
  return refresh.Refresher(
    refresh.BlockEmbedder(
      retrieval, config.refresh.slice_size, corpus.mesh.size
    ),
    tokens,
    mode=config.refresh.mode,
    every_steps=config.refresh.every_steps,
    workdir=workdir,
    manifest={**corpus.meta, "template": template(config)},
    keep=config.refresh.keep,
    probe=sharding.replicate(probe, corpus.mesh),
  )


def template(config: ConfigDict) -> str:
  """How a block became an embedder input; part of an index's manifest."""
  return manifest.template(config.block_len)


# rng -> the fresh params of one model.
InitFn = Callable[[jax.Array], dict]


def init_fn(module, *args, method=None) -> InitFn:
  """How one model's params are made; args as its __call__ or `method`."""
  return lambda rng: module.init(rng, *args, method=method)["params"]


def init_shapes(init_fns: dict[str, InitFn]) -> dict:
  """The shapes of all parts' params."""
  rng = jax.random.key(0)
  return {part: jax.eval_shape(f, rng) for part, f in init_fns.items()}


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


def check_same_data(
  workdir: str | pathlib.Path, meta: dict, corpus: Corpus
) -> None:
  """Refuses a checkpoint that was trained on other data than this.

  Raises:
    InputError: names what differs.
  """
  for key, value in corpus.meta.items():
    if meta[key] != value:
      raise InputError(
        f"{workdir}/checkpoints: {key} is {meta[key][:12]}, but"
        f" {corpus.data_dir} has {value[:12]}: use the data this run was"
        " trained on"
      )


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


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
  """The optimizer of a run."""
  train = config.train
  return optimizer.bert_adam(
    train.learning_rate,
    train.warmup_steps,
    train.num_steps,
    b1=train.b1,
    b2=train.b2,
    eps=train.eps,
    weight_decay=train.weight_decay,
    clip_norm=train.clip_norm,
    lr_scales={"embedder": train.retriever_lr_scale},
  )


def start(
  params: dict, config: ConfigDict, corpus: Corpus
) -> tuple[TrainState, Any]:
  """The state before the first step, on the mesh, and the optimizer."""
  tx = make_optimizer(config)
  return sharding.replicate(TrainState.create(params, tx), corpus.mesh), tx


def run_loop(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  corpus: Corpus,
  *,
  step_fn,
  state: TrainState,
  batches,
  refresher: refresh.Refresher | None = None,
  evaluators: Evaluators = (),
):
  """Hands a run to the loop, with its index, checkpoints and metrics.

  All input has been checked by now: nothing was written to the workdir before.

  Raises:
    InputError: the workdir holds another run, or a checkpoint of other data.
  """
  train = config.train
  checkpoints = checkpoint.Checkpoints(workdir, train.keep_checkpoints)
  checkpoint.open_run(workdir, config.to_dict())
  done = checkpoints.latest()
  if done is not None:
    check_same_data(workdir, checkpoints.meta(done), corpus)
  index = _index_at(done, refresher, state, workdir) if refresher else None
  return loop.train(
    step_fn=step_fn,
    state=state,
    index=index,
    batches=batches,
    num_steps=train.num_steps,
    workdir=workdir,
    checkpoints=checkpoints,
    writer=metrics.MetricsWriter(workdir),
    log_every=train.log_every,
    eval_every=train.eval_every,
    checkpoint_every=train.checkpoint_every,
    max_in_flight=train.max_in_flight,
    refresh=refresher,
    evaluators=evaluators,
    meta=corpus.meta,
    place_batch=lambda batch: sharding.shard_batch(batch, corpus.mesh),
  )


def _index_at(
  step: int | None,
  refresher: refresh.Refresher,
  state: TrainState,
  workdir: str | pathlib.Path,
) -> refresh.Index:
  """Version 0, or the shell that the checkpoint's index is restored into.

  Swaps that the run goes through again are taken out of the journal; of a run
  that never came to a checkpoint, nothing stays.

  Raises:
    InputError: the index has another corpus by now.
  """
  if blocks := versions.newest_blocks(workdir):
    raise InputError(
      f"{blocks} are another corpus than this run trains on"
      " (experiments.update_corpus): its next index would go back to the old"
      " one: train in another workdir"
    )
  if step is None:
    versions.start_over(workdir)
    return refresher.first(state.params)
  journal.truncate_swaps(workdir, step)
  return refresher.shell(state.params)
