"""What the demo has learnt: measured once, written as JSON, printed as a table.

Everything is measured on the dev and test leads, which no training saw.
"""

import dataclasses
import pathlib
from collections.abc import Mapping

import jax
import numpy as np

from realm_jax import files
from realm_jax.data import qa
from realm_jax.evals import comparison, pretrain
from realm_jax.evals import qa as qa_eval
from realm_jax.evals.exact_match import mean_and_se, paired_difference
from realm_jax.retrieval import journal
from realm_jax.retrieval.refresh import BlockEmbedder

_SPLITS = ("dev", "test")
_CUTOFFS = ("1", "5", "20")
_SLICE = 128  # blocks embedded at a time


def measure_pretraining(
  runs: Mapping, workdir: pathlib.Path, seed: int
) -> None:
  """Writes WORKDIR/measured_pretraining.json.

  Args:
    runs: the demo's finished runs by name (serve.run.Run): ict, encoder,
      pretrain, and frozen where there is one.
    workdir: of the demo.
    seed: of the untrained embedder.
  """
  questions = _questions(workdir)
  searched = {
    "random": _untrained(runs["ict"], seed),
    "ict": runs["ict"],
    "pretrain": runs["pretrain"],
  }
  found = {
    name: qa_eval.recall_of_run(run, questions)
    for name, run in searched.items()
  }
  measured = {
    "recall": {name: _at_cutoffs(columns) for name, columns in found.items()},
    "index_versions": len(journal.read_swaps(workdir / "pretrain")) + 1,
    **_pretraining(runs),
  }
  files.write_json(workdir / "measured_pretraining.json", measured)


def measure_finetuning(runs: Mapping, workdir: pathlib.Path) -> None:
  """Writes WORKDIR/measured_finetuning.json and the predictions.

  Args:
    runs: pretrain and finetune, as above.
    workdir: of the demo.
  """
  questions = _questions(workdir)
  scores = comparison.compare(
    runs["finetune"], runs["pretrain"], questions, shuffled=False
  )
  comparison.write(workdir, "dev_test", questions, scores)
  print(comparison.table(scores))
  exact = {name: s.columns["exact_match"] for name, s in scores.items()}
  exact["bm25_title"] = exact.pop("bm25")
  measured = {
    "recall": {
      name: _at_cutoffs(scores[name].columns) for name in ("realm", "bm25")
    },
    "exact_match": {k: round(float(v.mean()), 4) for k, v in exact.items()},
    "exact_match_se": {
      k: round(mean_and_se(v)[1], 4) for k, v in exact.items()
    },
    "questions": len(questions),
  }
  files.write_json(workdir / "measured_finetuning.json", measured)


def write(workdir: pathlib.Path, seconds: Mapping, total: Mapping) -> dict:
  """Publishes summary.json: what was measured, and what it cost.

  Args:
    workdir: of the demo.
    seconds: of each phase; some ran beside others.
    total: "seconds_total" and "peak_memory_gb".
  """
  before, after = (
    files.read_json(workdir / f"measured_{name}.json")
    for name in ("pretraining", "finetuning")
  )
  summary = {
    **before,
    **after,
    "recall": before["recall"] | after["recall"],
    "seconds": seconds,
    **total,
  }
  files.write_json(workdir / "summary.json", summary)
  return summary


def _questions(workdir):
  paths = [workdir / f"data/qa/{split}.jsonl" for split in _SPLITS]
  return [question for path in paths for question in qa.read_qa(path)]


def _untrained(run, seed):
  """The same run before its first step."""
  embedder = run.retrieval.embedder
  tokens = np.zeros((1, run.config["query_len"]), np.int32)
  params = jax.jit(embedder.init)(jax.random.key(seed), tokens)["params"]
  block_emb = BlockEmbedder(run.retrieval, _SLICE).embed_all(params, run.tokens)
  return dataclasses.replace(
    run, params={"embedder": params}, block_emb=block_emb
  )


def _at_cutoffs(columns) -> dict:
  return {
    k: round(float(np.nanmean(columns[f"recall_{k}"])), 4) for k in _CUTOFFS
  }


def _pretraining(runs) -> dict:
  """Held-out titles, masked: before and after pre-training, in pairs."""
  pretrained = runs["pretrain"]
  warm = {
    "embedder": runs["ict"].params["embedder"],
    "encoder": runs["encoder"].params["encoder"],
  }
  before = dataclasses.replace(
    pretrained, params=warm, block_emb=runs["ict"].block_emb
  )
  states = {"start": before, "end": pretrained}
  if "frozen" in runs:
    states["frozen_retriever"] = runs["frozen"]
  scores = {name: pretrain.score_run(run) for name, run in states.items()}
  recall = {name: s.recall() for name, s in scores.items()}
  return {
    "retrieval_utility": _means(scores, "retrieval_utility"),
    "gold_utility": _means(scores, "gold_utility"),
    "null_mass": _means(scores, "null_mass"),
    "masked_recall": {
      name: {str(k): round(float(np.nanmean(v)), 4) for k, v in hits.items()}
      for name, hits in recall.items()
    },
    "masked_recall_5_gain": _rounded(
      paired_difference(recall["end"][5], recall["start"][5])
    ),
    "retrieval_utility_gain": _rounded(
      paired_difference(
        scores["end"].retrieval_utility, scores["start"].retrieval_utility
      )
    ),
  }


def _means(scores, column) -> dict:
  return {
    name: _rounded(mean_and_se(getattr(s, column)))
    for name, s in scores.items()
  }


def _rounded(pair) -> list[float]:
  return [round(float(x), 4) for x in pair]


def table(summary: dict) -> str:
  """The summary as a person reads it."""
  lines = [f"\n{summary['questions']} held-out questions", ""]
  lines.append(f"{'recall at':24}" + "".join(f"{k:>8}" for k in _CUTOFFS))
  for name, at in summary["recall"].items():
    lines.append(f"  {name:22}" + "".join(f"{at[k]:8.3f}" for k in _CUTOFFS))
  lines += ["", "exact match"]
  for name, mean in summary["exact_match"].items():
    error = summary["exact_match_se"][name]
    lines.append(f"  {name:22}{mean:8.3f} ± {error:.3f}")
  lines += ["", "masked titles, before and after pre-training"]
  for name in ("retrieval_utility", "gold_utility", "null_mass"):
    cells = (f"{k} {m:.2f} ± {e:.2f}" for k, (m, e) in summary[name].items())
    lines.append(f"  {name:22}" + "   ".join(cells))
  recall = (f"{k} {v['5']:.3f}" for k, v in summary["masked_recall"].items())
  gain, error = summary["masked_recall_5_gain"]
  lines.append(f"  {'recall@5':22}" + "   ".join(recall))
  lines.append(f"  {'recall@5 gained':22}{gain:+.3f} ± {error:.3f} (paired)")
  spent = (f"{k} {v:.0f}" for k, v in summary["seconds"].items())
  lines += [
    "",
    f"seconds: {', '.join(spent)}; in all {summary['seconds_total']:.0f}",
    f"peak memory {summary['peak_memory_gb']:.1f} GB",
    "BM25 matches words and needs no training; a 1-layer retriever trained from"
    " nothing for minutes stays below it.",
  ]
  return "\n".join(lines)
