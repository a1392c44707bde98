"""Fine-tuning on open-domain QA (paper, section 3.2; ORQA), in batches.

The retriever is scored on `searcher_beam_size` blocks, the reader reads
`reader_beam_size` of them. Blocks are frozen as in the original, unless the
config has them embedded anew.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from realm_jax.data import input_pipeline
from realm_jax.models import bert
from realm_jax.models.reader import RealmReader
from realm_jax.plan.plan import Part, Program
from realm_jax.retrieval.block_tokens import Tokens, gather_blocks
from realm_jax.retrieval.open_qa import OpenQa
from realm_jax.retrieval.refresh import Index
from realm_jax.train import door, indexing, run, shapes, share, step, warm_start
from realm_jax.train.corpus import Corpus, open_corpus
from realm_jax.train.state import TrainState
from realm_jax.types import QaBatch


@dataclasses.dataclass(frozen=True)
class Finetuning:
  """A fine-tuning run's models and data, for its evaluators.

  Attributes:
    config: configs/finetune.py, its refresh.share settled.
    corpus: the data.
    open_qa: the forward pass.
    tokens: of all blocks.
  """

  config: ConfigDict
  corpus: Corpus
  open_qa: OpenQa
  tokens: Tokens


def open_finetuning(
  config: ConfigDict, workdir: str | pathlib.Path
) -> Finetuning:
  """Opens data and models; trains nothing and writes nothing.

  Raises:
    InputError: a mistake in config or data.
  """
  corpus = open_corpus(config, workdir)
  door.check_lengths(config, corpus)
  config = share.settled(config, workdir, corpus, lambda c: program(c, corpus))
  shapes.check_fits(program(config, corpus))
  open_qa = _make_open_qa(config, corpus)
  tokens = corpus.tokens(config)
  return Finetuning(config, corpus, open_qa, tokens)


def _make_open_qa(config, corpus) -> OpenQa:
  sizes = run.model_config(
    config,
    "encoder",
    corpus,
    max_span_width=config.max_span_width,
    reader_beam_size=config.reader_beam_size,
    searcher_beam_size=config.searcher_beam_size,
  )
  return OpenQa(
    retrieval=run.make_retrieval(config, corpus),
    reader=RealmReader(sizes),
    joint_len=config.joint_len,
    embed_found=config.embed_found,
    contiguous=config.contiguous,
  )


def finetune(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  make_evaluators: Callable[[Finetuning], run.Evaluators] = lambda _: (),
  profile: range = range(0),
) -> tuple[TrainState, Index]:
  """Trains retriever and reader on questions and answers.

  Args:
    config: configs/finetune.py.
    workdir: of the run; an interrupted one goes on.
    make_evaluators: the run's evaluators, given its models and data.
    profile: steps that are traced.

  Raises:
    InputError: a mistake in config, data or workdir.
  """
  opened = open_finetuning(config, workdir)
  config, corpus, tokens = opened.config, opened.corpus, opened.tokens
  open_qa = run.unpadded(opened.open_qa, config)
  init_fns = _init_fns(config, opened.open_qa)
  params = warm_start.init_params(init_fns, config, corpus)
  state, tx = run.start(params, config, corpus)
  refresher = indexing.make_refresher(
    config,
    workdir,
    corpus,
    opened.open_qa.retrieval,
    tokens,
    _probe(config, corpus),
  )
  qa_step = step.make_finetune_step(
    open_qa,
    tx,
    config.seed,
    config.searcher_beam_size,
    refresher.embedder,
    refresher.slices_per_step,
    config.microbatches,
  )
  return run.run_loop(
    config,
    workdir,
    corpus,
    step_fn=step.JitStep(qa_step, tokens),
    state=state,
    batches=_batches(config, corpus),
    refresher=refresher,
    evaluators=make_evaluators(opened),
    profile=profile,
  )


def _init_fns(config, open_qa) -> dict[str, warm_start.InitFn]:
  query = np.zeros((1, config.query_len), np.int32)
  joint = np.zeros((1, config.joint_len), np.int32)
  return {
    "embedder": warm_start.init_fn(open_qa.retrieval.embedder, query),
    "reader": warm_start.init_fn(
      open_qa.reader,
      bert.make_inputs(joint),
      np.ones_like(joint),
      joint,
      method=RealmReader.span_logits,
    ),
  }


def _batches(config, corpus):
  return input_pipeline.qa_batches(
    corpus.data_dir,
    "train",
    batch_size=config.train.batch_size,
    query_len=config.query_len,
    max_answers=config.max_answers,
    max_answer_len=config.max_answer_len,
    seed=config.seed,
    **run.my_rows(),
  )


def _probe(config, corpus):
  """The first held-out questions; without any, the first of training."""
  held_out = (corpus.data_dir / "qa" / "dev.jsonl").exists()
  batch = next(
    iter(
      input_pipeline.qa_eval_batches(
        corpus.data_dir,
        "dev" if held_out else "train",
        batch_size=config.refresh.probe_queries,
        query_len=config.query_len,
        max_answers=config.max_answers,
        max_answer_len=config.max_answer_len,
      )
    )
  )
  return batch.question


def program(config: ConfigDict, corpus) -> Program:
  """What a device runs, by shapes.

  Args:
    config: configs/finetune.py.
    corpus: Corpus or shapes.PlannedCorpus.
  """
  device = shapes.Device.of(config, corpus)
  exact = _make_open_qa(config, device.corpus)
  open_qa = run.unpadded(exact, config)
  retrieval, tokens = open_qa.retrieval, device.tokens
  state = device.state(warm_start.init_shapes(_init_fns(config, open_qa)))
  params, b = state.params, device.batch_size
  batch = QaBatch(
    question=shapes.inputs(b, config.query_len),
    answer_ids=shapes.array(b, config.max_answers, config.max_answer_len),
    answer_lens=shapes.array(b, config.max_answers),
    example_ids=shapes.array(b),
  )
  beam = config.searcher_beam_size
  ids = shapes.array(b, beam)
  refresher = device.refresher(exact.retrieval)
  index = device.index_parts(refresher, retrieval, params, beam)
  embed_query = shapes.trained(retrieval.embed_query)
  parts = {
    "embed queries": Part(embed_query, (params, batch.question)),
    "search": index.pop("search"),
  }
  if config.embed_found:
    found = jax.eval_shape(gather_blocks, tokens, ids)
    embed_found = functools.partial(
      retrieval.embed_blocks, fill=retrieval.fill.block
    )
    parts["embed candidates"] = Part(
      shapes.trained(embed_found), (params, found)
    )

  def read(params, tokens, question, ids):
    blocks = open_qa.gather_read(tokens, ids)
    joint, body_mask = open_qa.join(question, blocks)
    return open_qa.read(params, question, joint, body_mask)

  parts["joining"] = Part(
    shapes.trained(read),
    (params, tokens, batch.question, ids),
    scopes={"reader layers": "realm", "span head": "qa_outputs"},
  )
  return Program(
    step=step.make_finetune_step(
      open_qa,
      run.make_optimizer(config),
      config.seed,
      beam,
      refresher.embedder,
      refresher.slices_per_step,
      config.microbatches,
    ),
    args=(state, device.index(params), batch, tokens),
    state_sizes=device.state_sizes(state),
    parts={**parts, **device.optimizer(state), **index},
    embed_all=device.embed_all(refresher, params),
    refresh_every=device.refresh_every,
    vocab_size=corpus.tokenizer.vocab_size,
    fields=("searcher_beam_size", "reader_beam_size", "joint_len"),
    devices=device.devices,
    on_host=device.on_host,
    sent=device.sent(params, k=beam, read=beam),
  )
