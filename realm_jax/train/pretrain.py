"""REALM pre-training, and the warm start of an encoder that begins from nothing.

One data pipeline and one model serve both; `config.evidence` says whether the
candidates are retrieved or the text's own block is given.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from realm_jax.data import input_pipeline
from realm_jax.data.masking import Masking
from realm_jax.models import bert
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.plan.plan import Part, Program
from realm_jax.retrieval.block_tokens import Tokens, gather_blocks
from realm_jax.retrieval.realm import Realm
from realm_jax.retrieval.refresh import Index
from realm_jax.train import door, indexing, run, shapes, share, step, warm_start
from realm_jax.train.corpus import Corpus, open_corpus
from realm_jax.train.state import TrainState
from realm_jax.types import PretrainBatch

_CHOICES = {
  "evidence": ("retrieved", "own"),
  "marginalise": ("token", "span"),
  "query_params": ("current", "index"),
}


@dataclasses.dataclass(frozen=True)
class Pretraining:
  """A pre-training run's models and data, for its evaluators.

  Attributes:
    config: configs/pretrain.py, its refresh.share settled.
    corpus: the data.
    realm: the forward pass.
    tokens: of all blocks.
  """

  config: ConfigDict
  corpus: Corpus
  realm: Realm
  tokens: Tokens


def open_pretraining(
  config: ConfigDict, workdir: str | pathlib.Path
) -> Pretraining:
  """Opens data and models; trains nothing and writes nothing.

  Raises:
    InputError: a mistake in config or data.
  """
  corpus = open_corpus(config, workdir)
  door.check_lengths(config, corpus)
  config = share.settled(config, workdir, corpus, lambda c: program(c, corpus))
  shapes.check_fits(program(config, corpus))
  realm = _make_realm(config, corpus)
  tokens = corpus.tokens(config)
  return Pretraining(config, corpus, realm, tokens)


def _make_realm(config, corpus) -> Realm:
  return Realm(
    retrieval=run.make_retrieval(config, corpus),
    encoder=RealmKnowledgeAugEncoder(
      run.model_config(config, "encoder", corpus)
    ),
    num_candidates=config.num_candidates,
    joint_len=config.joint_len,
    marginalise=config.marginalise,
    contiguous=config.contiguous,
  )


def pretrain(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  make_evaluators: Callable[[Pretraining], run.Evaluators] = lambda _: (),
  profile: range = range(0),
) -> tuple[TrainState, Index | None]:
  """Trains retriever and encoder together (paper, section 3).

  Args:
    config: configs/pretrain.py or configs/encoder.py.
    workdir: of the run; an interrupted one goes on.
    make_evaluators: the run's evaluators, given its models and data.
    profile: steps that are traced.

  Raises:
    InputError: a mistake in config, data or workdir.
  """
  door.check_choices(config, _CHOICES)
  opened = open_pretraining(config, workdir)
  config, corpus, tokens = opened.config, opened.corpus, opened.tokens
  realm = run.unpadded(opened.realm, config)
  state, tx = run.start(init_params(opened), config, corpus)
  batches = _batches(config, corpus)
  if config.evidence == "own":
    encoder_step = step.make_encoder_step(
      realm, tx, config.seed, config.null_share, config.microbatches
    )
    return run.run_loop(
      config,
      workdir,
      corpus,
      step_fn=step.JitStep(encoder_step, tokens),
      state=state,
      batches=batches,
      profile=profile,
    )
  refresher = indexing.make_refresher(
    config,
    workdir,
    corpus,
    opened.realm.retrieval,
    tokens,
    _probe(config, corpus),
  )
  pretrain_step = step.make_pretrain_step(
    realm,
    tx,
    config.seed,
    refresher.embedder,
    refresher.slices_per_step,
    config.microbatches,
  )
  return run.run_loop(
    config,
    workdir,
    corpus,
    step_fn=step.JitStep(pretrain_step, tokens),
    state=state,
    batches=batches,
    refresher=refresher,
    evaluators=make_evaluators(opened),
    profile=profile,
  )


def init_params(opened: Pretraining) -> dict:
  """Fresh params, or those of the runs that config.init names."""
  init_fns = _init_fns(opened.config, opened.realm)
  return warm_start.init_params(init_fns, opened.config, opened.corpus)


def _init_fns(config, realm) -> dict[str, warm_start.InitFn]:
  query = np.zeros((1, config.query_len), np.int32)
  joint = np.zeros((1, config.joint_len), np.int32)
  return {
    "embedder": warm_start.init_fn(realm.retrieval.embedder, query),
    "encoder": warm_start.init_fn(
      realm.encoder,
      bert.make_inputs(joint),
      jnp.zeros((1, config.max_masks), jnp.int32),
      method=RealmKnowledgeAugEncoder.mlm_logits,
    ),
  }


def _batches(config, corpus):
  return input_pipeline.pretrain_batches(
    corpus.data_dir,
    batch_size=config.train.batch_size,
    query_len=config.query_len,
    max_masks=config.max_masks,
    weights=config.text_weights,
    seed=config.seed,
    masking=Masking(config.masking, config.mask_share),
    **run.my_rows(),
  )


def _probe(config, corpus):
  """The first held-out queries."""
  batch = next(
    iter(
      input_pipeline.pretrain_eval_batches(
        corpus.data_dir,
        "dev",
        batch_size=config.refresh.probe_queries,
        query_len=config.query_len,
        max_masks=config.max_masks,
      )
    )
  )
  return batch.query


def program(config: ConfigDict, corpus) -> Program:
  """What a device runs, by shapes.

  Args:
    config: configs/pretrain.py or configs/encoder.py.
    corpus: Corpus or shapes.PlannedCorpus.
  """
  device = shapes.Device.of(config, corpus)
  exact = _make_realm(config, device.corpus)
  realm = run.unpadded(exact, config)
  state = device.state(warm_start.init_shapes(_init_fns(config, realm)))
  params, tokens, batch = state.params, device.tokens, _batch_shapes(device)
  tx = run.make_optimizer(config)
  rest = {
    "vocab_size": corpus.tokenizer.vocab_size,
    "fields": ("num_candidates", "joint_len"),
    "devices": device.devices,
    "on_host": device.on_host,
  }

  def read(k):
    ids = shapes.array(device.batch_size, k)
    found = jax.eval_shape(gather_blocks, tokens, ids)
    scopes = {"encoder layers": "realm", "MLM head": "cls"}
    read = Part(shapes.trained(score), (params, batch, found), scopes=scopes)
    return {"joining": read}, found

  def score(params, batch, blocks):
    states = realm.mask_states(params, batch, blocks)
    return realm.score_words(params, batch, states)[2]

  if config.evidence == "own":
    return Program(
      step=step.make_encoder_step(
        realm, tx, config.seed, config.null_share, config.microbatches
      ),
      args=(state, None, batch, tokens),
      state_sizes=device.state_sizes(state),
      parts={**read(1)[0], **device.optimizer(state)},
      embed_all=None,
      refresh_every=0,
      sent=device.sent(params, read=1),
      **rest,
    )
  k = realm.num_candidates
  refresher = device.refresher(exact.retrieval)
  index = device.index_parts(refresher, realm.retrieval, params, k)
  reading, found = read(k)
  embed_query = shapes.trained(realm.retrieval.embed_query)
  embed_candidates = shapes.trained(realm.retrieval.embed_candidates)
  parts = {
    "embed queries": Part(embed_query, (params, batch.query)),
    "search": index.pop("search"),
    "embed candidates": Part(embed_candidates, (params, found)),
    **reading,
    **device.optimizer(state),
    **index,
  }
  return Program(
    step=step.make_pretrain_step(
      realm,
      tx,
      config.seed,
      refresher.embedder,
      refresher.slices_per_step,
      config.microbatches,
    ),
    args=(state, device.index(params), batch, tokens),
    state_sizes=device.state_sizes(state),
    parts=parts,
    embed_all=device.embed_all(refresher, params),
    refresh_every=device.refresh_every,
    sent=device.sent(params, k=k, read=k),
    **rest,
  )


def _batch_shapes(device: shapes.Device) -> PretrainBatch:
  b, m = device.batch_size, device.config.max_masks
  return PretrainBatch(
    query=shapes.inputs(b, device.config.query_len),
    mlm_positions=shapes.array(b, m),
    mlm_targets=shapes.array(b, m),
    mlm_mask=shapes.array(b, m),
    own_block=shapes.array(b),
    gold_block=shapes.array(b),
    example_ids=shapes.array(b),
  )
