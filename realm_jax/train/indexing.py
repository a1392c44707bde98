"""How a run keeps its index: what refreshes it, how fresh, and where it begins."""

import dataclasses
import pathlib

from ml_collections import ConfigDict

from realm_jax import distributed, sharding
from realm_jax.config import InputError
from realm_jax.retrieval import index as versions
from realm_jax.retrieval import manifest, modes, refresh
from realm_jax.retrieval.block_tokens import Tokens
from realm_jax.retrieval.contract import Contract
from realm_jax.retrieval.refresher import Refresher
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.train import checkpoint, metrics, sealed
from realm_jax.train.corpus import Corpus
from realm_jax.train.state import TrainState
from realm_jax.types import Inputs


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


def index_at(
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
