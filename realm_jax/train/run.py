"""What every run is made of: models, index, optimizer, and the loop.

The assembly that ICT, pre-training, fine-tuning and building an index have in
common, so that each of them reads as what it does.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import optax
from ml_collections import ConfigDict

from realm_jax import sharding
from realm_jax.config import InputError, RealmConfig
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.retrieval import index as versions
from realm_jax.retrieval import journal, manifest, refresh
from realm_jax.retrieval.open_qa import OpenQa
from realm_jax.retrieval.realm import Realm
from realm_jax.retrieval.retrieve import ALL, Fill, Retrieval
from realm_jax.train import checkpoint, loop, metrics, optimizer
from realm_jax.train.corpus import Corpus, check_same_data
from realm_jax.train.state import TrainState
from realm_jax.types import BlockTokens, Inputs

# A run's evaluators: fn(state, index) -> pairs of (name, value).
Evaluators = Sequence[tuple[str, Callable[[Any, Any], Any]]]


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
