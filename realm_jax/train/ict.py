"""The inverse cloze task: warm start of the embedder (ORQA, section 4)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from realm_jax.data import input_pipeline
from realm_jax.models import objective
from realm_jax.plan.plan import Part, Program
from realm_jax.retrieval.retrieve import Fill, Retrieval
from realm_jax.train import door, run, shapes, step, warm_start
from realm_jax.train.corpus import open_corpus
from realm_jax.train.state import TrainState
from realm_jax.types import IctBatch


def train_ict(
  config: ConfigDict, workdir: str | pathlib.Path, profile: range = range(0)
) -> TrainState:
  """Trains an embedder to find the block that a sentence was taken from.

  Args:
    config: configs/ict.py.
    workdir: of the run; an interrupted one goes on.
    profile: steps that are traced.

  Raises:
    InputError: a mistake in config, data or workdir.
  """
  corpus = open_corpus(config, workdir)
  door.check_lengths(config, corpus)
  shapes.check_fits(program(config, corpus))
  retrieval = _make_retrieval(config, corpus)
  batches = input_pipeline.ict_batches(
    corpus.data_dir,
    batch_size=config.train.batch_size,
    query_len=config.query_len,
    block_len=config.block_len,
    mask_rate=config.mask_rate,
    hide_title=config.hide_title,
    min_sentence_len=config.min_sentence_len,
    keep_single=config.keep_single,
    seed=config.seed,
    **run.my_rows(),
  )
  init_fns = _init_fns(config, retrieval)
  params = warm_start.init_params(init_fns, config, corpus)
  state, tx = run.start(params, config, corpus)
  ict_step = step.make_ict_step(retrieval, tx, config.seed, config.microbatches)
  state, _ = run.run_loop(
    config,
    workdir,
    corpus,
    step_fn=step.JitStep(ict_step, None),
    state=state,
    batches=batches,
    profile=profile,
  )
  return state


def program(config: ConfigDict, corpus) -> Program:
  """What a device runs, by shapes.

  Args:
    config: configs/ict.py.
    corpus: corpus.Corpus or shapes.PlannedCorpus.

  Raises:
    InputError: parts that do not divide the batch.
  """
  device = shapes.Device.of(config, corpus)
  door.check_splits(config, device.mesh)
  retrieval = _make_retrieval(config, device.corpus)
  state = device.state(warm_start.init_shapes(_init_fns(config, retrieval)))
  b, n = device.batch_size, config.microbatches
  # in parts, the backward pass embeds anew
  again = jax.checkpoint if n > 1 else lambda embed: embed
  batch = IctBatch(
    query=shapes.inputs(b, config.query_len),
    block=shapes.inputs(b, config.block_len),
    example_ids=shapes.array(b),
  )

  rows = b // n  # of a part

  @again
  def embed_query(params, query):
    return retrieval.embed_query(params, query)

  @again
  def embed_blocks(params, block):
    return retrieval.embed(params, block, fill=retrieval.fill.block)

  # on a mesh a device has the scores of its queries with all blocks
  def score(query_emb, block_emb):
    return objective.ict_loss(query_emb, block_emb)[0]

  emb = shapes.array(b, config.embedder.retriever_proj_size, dtype=jnp.float32)
  parts = {
    "embed queries": Part(
      shapes.trained(embed_query),
      (state.params, shapes.inputs(rows, config.query_len)),
      n,
    ),
    "embed blocks": Part(
      shapes.trained(embed_blocks),
      (state.params, shapes.inputs(rows, config.block_len)),
      n,
    ),
    "scores": Part(jax.grad(score, argnums=(0, 1)), (emb, emb), device.devices),
    **device.optimizer(state),
  }
  tx = run.make_optimizer(config)
  return Program(
    step=step.make_ict_step(retrieval, tx, config.seed, config.microbatches),
    args=(state, None, batch, None),
    state_sizes=device.state_sizes(state),
    parts=parts,
    embed_all=None,
    refresh_every=0,
    vocab_size=corpus.tokenizer.vocab_size,
    fields=("block_len", "more microbatches"),
    devices=device.devices,
    sent=device.sent(state.params, embeddings=1),
  )


def _make_retrieval(config, corpus) -> Retrieval:
  return run.make_retrieval(config, corpus, Fill(**config.fill))


def _init_fns(config, retrieval) -> dict[str, warm_start.InitFn]:
  query = np.zeros((1, config.query_len), np.int32)
  return {"embedder": warm_start.init_fn(retrieval.embedder, query)}
