"""What every run is made of: models, index, optimizer, and the loop.

The assembly that ICT, pre-training, fine-tuning and building an index have in
common, so that each of them reads as what it does.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from realm_jax import distributed, sharding
from realm_jax.config import InputError, RealmConfig
from realm_jax.models import attention
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.plan import flops
from realm_jax.retrieval import index as versions
from realm_jax.retrieval import manifest, modes, refresh
from realm_jax.retrieval.block_tokens import Tokens
from realm_jax.retrieval.contract import Contract
from realm_jax.retrieval.open_qa import OpenQa
from realm_jax.retrieval.realm import Realm
from realm_jax.retrieval.refresher import Refresher
from realm_jax.retrieval.retrieve import ALL, SEARCH, Fill, Retrieval
from realm_jax.train import (
  checkpoint,
  loop,
  metrics,
  optimizer,
  sealed,
  supervise,
  telemetry,
)
from realm_jax.train.corpus import Corpus, check_same_data
from realm_jax.train.state import TrainState
from realm_jax.types import Inputs

# A run's evaluators: fn(state, index) -> pairs of (name, value).
Evaluators = Sequence[tuple[str, Callable[[Any, Any], Any]]]


def model_config(
  config: ConfigDict, part: str, corpus: Corpus, **more
) -> RealmConfig:
  """RealmConfig of a part's section; the vocabulary is the tokenizer's."""
  return RealmConfig.from_dict(
    {
      **config[part].to_dict(),
      "compute_dtype": config.compute_dtype,
      "remat": config.remat,
      "attention": config.attention,
      "vocab_size": corpus.tokenizer.vocab_size,
      "pad_token_id": corpus.tokenizer.pad_id,
      "num_block_records": len(corpus.store),
      **more,
    }
  )


def check_choices(
  config: ConfigDict, choices: Mapping[str, Sequence[str]]
) -> None:
  """Refuses a field that is none of its choices.

  Raises:
    InputError: names the field, its value and the choices.
  """
  for name, known in choices.items():
    if config[name] not in known:
      raise InputError(
        f"config {name}={config[name]!r}: wanted {' or '.join(known)}"
      )


def check_lengths(config: ConfigDict, corpus: Corpus) -> None:
  """Refuses sequences that are longer than the position tables, too many
  candidates, no room for tokens or place for them, attention that is not to be
  had here, and batches that the devices do not divide.

  Raises:
    InputError: names the field, its value and the mend.
  """
  check_choices(config, {"block_tokens": ("device", "host")})
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
  for part in ("embedder", "encoder"):
    attention.check_training(model_config(config, part, corpus), f"{part}.")
  check_splits(config, corpus.mesh)


def check_splits(config: ConfigDict, mesh) -> None:
  """Refuses a batch, or heads, that the mesh does not divide."""
  ways = sharding.batch_ways(mesh)
  size = config.train.batch_size
  if size % ways:
    raise InputError(
      f"config train.batch_size={size} does not split over {ways} devices: take"
      " a multiple of them, or fewer devices with --config.mesh.data"
    )
  parts = config.microbatches if "microbatches" in config else 1
  if parts < 1 or size % (parts * ways):
    raise InputError(
      f"config microbatches={parts}: wanted 1 or more parts of"
      f" train.batch_size={size}, each a multiple of {ways} devices"
    )
  tensor = mesh.shape["tensor"]
  for part in ("embedder", "encoder"):
    if (heads := config[part].num_attention_heads) % tensor:
      raise InputError(
        f"config mesh.tensor={tensor} does not divide"
        f" {part}.num_attention_heads={heads}: take a divisor of it"
      )


def make_retrieval(
  config: ConfigDict, corpus: Corpus, fill: Fill = ALL
) -> Retrieval:
  """The search of a run; computes all padding, unless `fill` spares it."""
  return Retrieval(
    embedder=RealmEmbedder(model_config(config, "embedder", corpus)),
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
  tokens: Tokens,
  probe: Inputs,
) -> Refresher:
  """What keeps the run's index fresh.

  Raises:
    InputError: a mode or a contract that can't be.
  """
  kind, contract = modes.refresher_of(config.refresh.mode), contract_of(config)
  folder = checkpoint.folder(workdir)
  return kind(
    refresh.BlockEmbedder(
      retrieval, config.refresh.slice_size, corpus.mesh.size
    ),
    tokens,
    contract,
    workdir=workdir,
    manifest={**corpus.meta, "template": template(config)},
    keep=config.refresh.keep,
    probe=sharding.replicate(probe, corpus.mesh),
    keep_params=keeps_params(config),
    oldest_checkpoint=lambda: min(sealed.numbers(folder), default=0),
    say=metrics.note,
  )


def keeps_params(config: ConfigDict) -> bool:
  """Whether the index goes with the params that made it; fine-tuning's never.

  Raises:
    InputError: the index's versions come without.
  """
  keeps = "query_params" in config and config.query_params == "index"
  if keeps and config.refresh.mode == "worker":
    raise InputError(
      "config query_params=index: versions that workers make come without their"
      " params: give refresh.mode=interleaved or query_params=current"
    )
  return keeps


def contract_of(config: ConfigDict) -> Contract:
  """How fresh the config wants the index.

  Raises:
    InputError: names the field, its value and the mend.
  """
  section, every = config.refresh, config.train.checkpoint_every
  if section.supervise and (section.mode != "worker" or section.replay):
    raise InputError(
      f"config refresh.supervise={section.supervise}: wanted 0 where"
      " refresh.mode is not worker, or a journal is replayed"
    )
  fields = (field.name for field in dataclasses.fields(Contract))
  contract = Contract(**{name: section[name] for name in fields})
  if section.mode != "worker" or contract.replay:
    return contract
  if not 0 < every <= contract.every_steps:
    raise InputError(
      f"config train.checkpoint_every={every}: a worker makes the index of"
      " checkpoints, so give 1 to"
      f" refresh.every_steps={contract.every_steps}"
    )
  least = contract.every_steps + every
  if 0 < contract.max_staleness_steps < least:
    raise InputError(
      "config refresh.max_staleness_steps="
      f"{contract.max_staleness_steps}: refresh.every_steps and"
      f" train.checkpoint_every take {least}; give that or more, or 0"
    )
  return contract


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
  return sharding.shard_state(TrainState.create(params, tx), corpus.mesh), tx


def my_rows() -> dict[str, int]:
  """Which rows of a batch this process reads: arguments of a batch iterator."""
  return {
    "process_index": jax.process_index(),
    "process_count": jax.process_count(),
  }


def run_loop(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  corpus: Corpus,
  *,
  step_fn,
  state: TrainState,
  batches,
  refresher: Refresher | None = None,
  evaluators: Evaluators = (),
  profile: range = range(0),
):
  """Hands a run to the loop, with its index, checkpoints and metrics.

  All input has been checked by now: nothing was written to the workdir before.

  Args:
    step_fn: step.JitStep.
    profile: steps that are traced.

  Raises:
    InputError: the workdir holds another run, or a checkpoint of other data.
  """
  train = config.train
  checkpoints = checkpoint.Checkpoints(workdir, train.keep_checkpoints)
  checkpoint.open_run(workdir, config.to_dict())
  done = distributed.by_process_0(checkpoints.latest)
  sizes = dict(corpus.mesh.shape)
  index, meta = None, {**corpus.meta, "mesh": sizes}
  if done is not None:
    held = checkpoints.meta(done)
    check_same_data(workdir, held, corpus)
    _say_other_mesh(workdir, held.get("mesh"), sizes)
  if refresher:
    index = _index_at(done, refresher, state, checkpoints, workdir)
  with contextlib.ExitStack() as stack:
    if refresher and config.refresh.supervise and jax.process_index() == 0:
      seconds = config.refresh.block_seconds
      stack.enter_context(
        supervise.workers(workdir, config.refresh.supervise, seconds)
      )
    return loop.train(
      step_fn=step_fn,
      state=state,
      index=index,
      batches=batches,
      schedule=loop.Schedule(*(train[name] for name in loop.Schedule._fields)),
      workdir=workdir,
      checkpoints=checkpoints,
      writer=metrics.MetricsWriter(workdir),
      **_of_index(refresher),
      evaluators=evaluators,
      meta=meta,
      place_batch=lambda batch: sharding.shard_batch(batch, corpus.mesh),
      meter=telemetry.Meter(
        lambda: _count_flops(step_fn, refresher), corpus.mesh.size
      ),
      profile=profile,
    )


def _count_flops(step_fn, refresher: Refresher | None) -> tuple[int, int]:
  """FLOPs of a step, the slices that it embeds among them; of its search."""
  slices = refresher.slices_per_step if refresher else 0
  return flops.count(step_fn.jaxpr, SEARCH, max(slices, 1))


def _of_index(refresher: Refresher | None) -> dict[str, Any]:
  """What the loop is told of a run's index, if it has one."""
  if refresher is None:
    return {}
  return {
    "refresh": refresher, "watch": refresher.watch, "fit": refresher.fit,
  }  # fmt: skip


def _say_other_mesh(workdir, before: dict | None, now: dict) -> None:
  if before not in (None, now):
    old, new = (
      ", ".join(f"{axis}={size}" for axis, size in sizes.items())
      for sizes in (before, now)
    )
    metrics.note(
      f"{workdir}: was on a mesh of {old} and goes on with {new}: the figures"
      " are no longer those of one run bit for bit"
    )


def _index_at(
  step: int | None,
  refresher: Refresher,
  state: TrainState,
  checkpoints: checkpoint.Checkpoints,
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
    distributed.by_process_0(lambda: versions.start_over(workdir))
    return refresher.first(state.params)
  refresher.go_on(step)
  num_rows = checkpoints.shapes(step).get("index/block_emb", (None,))[0]
  return refresher.shell(state.params, num_rows)
