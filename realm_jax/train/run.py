"""What every run is made of: models, index, optimizer, and the loop.

The assembly that ICT, pre-training, fine-tuning and building an index have in
common, so that each of them reads as what it does.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from realm_jax import distributed, run_config, sharding
from realm_jax.config import RealmConfig
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.plan import flops
from realm_jax.retrieval.open_qa import OpenQa
from realm_jax.retrieval.realm import Realm
from realm_jax.retrieval.refresher import Refresher
from realm_jax.retrieval.retrieve import ALL, SEARCH, Fill, Retrieval
from realm_jax.train import (
  checkpoint,
  indexing,
  loop,
  metrics,
  optimizer,
  supervise,
  telemetry,
)
from realm_jax.train.corpus import Corpus, check_same_data
from realm_jax.train.state import TrainState

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
  run_config.claim(workdir, config.to_dict())
  done = distributed.by_process_0(checkpoints.latest)
  sizes = dict(corpus.mesh.shape)
  index, meta = None, {**corpus.meta, "mesh": sizes}
  if done is not None:
    held = checkpoints.meta(done)
    check_same_data(workdir, held, corpus)
    _say_other_mesh(workdir, held.get("mesh"), sizes)
  if refresher:
    index = indexing.index_at(done, refresher, state, checkpoints, workdir)
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
