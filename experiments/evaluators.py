"""What training runs and the demo are evaluated by, on held-out data."""

import itertools

from realm_jax import sharding
from realm_jax.data import input_pipeline, qa, swap
from realm_jax.evals import ablations, demo_summary, swap_summary
from realm_jax.evals import pretrain as pretrain_eval
from realm_jax.evals import qa as qa_eval
from realm_jax.retrieval import index, manifest
from realm_jax.serve.run import open_run

_HELD_OUT = ("dev", "test")


def of_pretraining(opened):
  """Retrieval utility, recall and null-block mass on held-out masked queries.

  Args:
    opened: train.pretrain.Pretraining.
  """
  config, corpus = opened.config, opened.corpus

  def batches():
    every = input_pipeline.pretrain_eval_batches(
      corpus.data_dir,
      "dev",
      batch_size=config.eval_batch_size,
      query_len=config.query_len,
      max_masks=config.max_masks,
    )
    count = -(-config.eval_queries // config.eval_batch_size)
    return itertools.islice(every, count)

  evaluate = pretrain_eval.make_evaluator(
    opened.realm,
    opened.tokens,
    batches,
    lambda batch: sharding.shard_whole_batch(batch, corpus.mesh),
  )
  return [("dev", evaluate)]


def of_finetuning(opened):
  """Exact match and recall on held-out questions.

  Args:
    opened: train.finetune.Finetuning.
  """
  config, corpus = opened.config, opened.corpus
  path = corpus.data_dir / "qa" / "dev.jsonl"
  if not path.exists():
    return []
  evaluate = qa_eval.make_evaluator(
    opened.open_qa,
    opened.tokens,
    qa.read_qa(path)[: config.eval_questions],
    corpus.store,
    corpus.tokenizer,
    query_len=config.query_len,
  )
  return [("dev", evaluate)]


def measure_pretraining(workdir, seed):
  """What can be measured of a demo before its fine-tuning is over."""
  runs = _open_runs(workdir, "ict", "encoder", "pretrain")
  if (workdir / "frozen").exists():  # its retriever is ICT's, and its index
    runs["frozen"] = open_run(workdir / "frozen", str(workdir / "ict"))
  demo_summary.measure_pretraining(runs, workdir, seed)


def measure_finetuning(workdir):
  """The rest."""
  runs = _open_runs(workdir, "pretrain", "finetune")
  demo_summary.measure_finetuning(runs, workdir)


def measure_arm(workdir, retriever, encoder, path):
  """What an arm of an ablation has learnt, on all held-out data.

  Args:
    workdir: of its fine-tuning.
    retriever, encoder: of what its retriever and its reader started from.
    path: see ablations.measure.
  """
  runs = {name: open_run(name) for name in {workdir, retriever, encoder}}
  run = runs[workdir]
  splits = [run.data_dir / "qa" / f"{split}.jsonl" for split in _HELD_OUT]
  questions = [q for file in splits for q in qa.read_qa(file)]
  ablations.measure(run, runs[retriever], runs[encoder], questions, path)


def measure_swap(workdir):
  """What a knowledge swap's reader answers from either book."""
  run = workdir / "finetune"
  newest = index.version_path(run, index.latest_version(run))
  versions = manifest.read(newest)["changed"]["parent"], int(newest.name)
  runs = (open_run(run, str(version)) for version in versions)
  asked = swap.read_asked(workdir / "facts")
  swap_summary.measure(dict(zip(swap.BOOKS, runs, strict=True)), asked, workdir)


def _open_runs(workdir, *names):
  there = [n for n in names if (workdir / n / "checkpoints").exists()]
  return {name: open_run(workdir / name) for name in there}
