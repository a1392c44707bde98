"""The inverse cloze task: warm start of the embedder (ORQA, section 4)."""

import pathlib

import numpy as np
from ml_collections import ConfigDict

from realm_jax.data import input_pipeline
from realm_jax.retrieval.forward import Fill
from realm_jax.train import run, step
from realm_jax.train.state import TrainState


def train_ict(config: ConfigDict, workdir: str | pathlib.Path) -> TrainState:
  """Trains an embedder to find the block that a sentence was taken from.

  Args:
    config: configs/ict.py.
    workdir: of the run; an interrupted one goes on.

  Raises:
    InputError: a mistake in config, data or workdir.
  """
  corpus = run.open_corpus(config, workdir)
  run.check_lengths(config, corpus)
  retrieval = run.make_retrieval(config, corpus, Fill(**config.fill))
  batches = input_pipeline.ict_batches(
    corpus.data_dir,
    batch_size=config.train.batch_size,
    query_len=config.query_len,
    block_len=config.block_len,
    mask_rate=config.mask_rate,
    hide_title=config.hide_title,
    seed=config.seed,
  )
  tokens = np.zeros((1, config.query_len), np.int32)
  params = run.warm_start(
    run.init_fn(retrieval.embedder, tokens),
    config.seed,
    "init.embedder",
    config.init.embedder,
    corpus,
    ("embedder",),
  )
  state, tx = run.start({"embedder": params}, config, corpus)
  ict_step = step.make_ict_step(retrieval, tx, config.seed)
  state, _ = run.run_loop(
    config,
    workdir,
    corpus,
    step_fn=step.jit_step(ict_step, None),
    state=state,
    batches=batches,
  )
  return state
