"""The arms of an ablation, over several seeds, as a table.

An arm is judged after fine-tuning (exact match), and by what it was fine-tuned
from: its retriever (zero-shot recall, as the paper's), and what that is worth
to its encoder (retrieval utility). A pre-training is judged by what its own
index gave it while it went on as well.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

from realm_jax import files
from realm_jax.data import qa as qa_files
from realm_jax.evals import curves, pretrain, qa
from realm_jax.evals.exact_match import (
  mean_and_se,
  paired_difference,
  write_predictions,
)

_FIRST = "realm"  # the arm that all others are compared with
# figure -> its column
_COLUMNS = {
  "exact_match": "EM",
  "recall_5": "R@5",
  "answer_recall_5": "has@5",
  "retrieval_utility": "utility",
}
# of metrics.jsonl -> its column; the differences of _GAINS are of interest
_TRAINING = {
  "gold_in_candidates": "gold found",
  "retrieval_utility": "utility",
  "loss": "loss",
  "index_staleness": "staleness",
}
_GAINS = ("gold_in_candidates", "retrieval_utility")


def measure(
  run,
  retriever,
  encoder,
  questions: Sequence[qa_files.Question],
  path: pathlib.Path,
) -> None:
  """Publishes the figures of one arm and seed.

  Args:
    run: the fine-tuned serve.run.Run.
    retriever: the one that its retriever was fine-tuned from.
    encoder: the one that its reader was fine-tuned from.
    questions: held out.
    path: FILE.json; the predictions go to FILE.jsonl.
  """
  scores = qa.score_run(run, questions)
  zero_shot = qa.recall_of_run(retriever, questions)
  start = dataclasses.replace(
    encoder,
    params={**encoder.params, "embedder": retriever.params["embedder"]},
    block_emb=retriever.block_emb,
  )
  queries = encoder.config["eval_queries"]
  utility = pretrain.score_run(start, queries).retrieval_utility
  mean, error = mean_and_se(scores.columns["exact_match"])
  figures = {
    "exact_match": mean,
    "exact_match_se": error,  # over the questions
    "exact_match_sum": int(scores.columns["exact_match"].sum()),
    "questions": len(questions),
    "recall_5": mean_and_se(zero_shot["recall_5"])[0],
    "answer_recall_5": mean_and_se(zero_shot["answer_recall_5"])[0],
    "retrieval_utility": mean_and_se(utility)[0],
  }
  write_predictions(path.with_suffix(".jsonl"), scores.predictions)
  files.write_json(path, {k: _or_none(v) for k, v in figures.items()})


def write(
  workdir: pathlib.Path,
  paths: Mapping[str, Sequence[pathlib.Path]],
  runs: Mapping[str, Sequence[pathlib.Path]],
  paper: Mapping[str, Sequence[float]],
  total: Mapping[str, float],
) -> str:
  """Publishes WORKDIR/table.json and table.md.

  Args:
    workdir: of the suite.
    paths: arm -> what `measure` wrote, a file a seed.
    runs: pre-training -> its metrics.jsonl, a file a seed.
    paper: arm -> exact match and recall@5 of the paper, percent.
    total: what it cost.

  Returns:
    The table.
  """
  seeds = {arm: [files.read_json(p) for p in of] for arm, of in paths.items()}
  arms = _summaries(seeds, _COLUMNS, ["exact_match"])
  trained = {name: list(map(_later_half, of)) for name, of in runs.items()}
  training = _summaries(trained, _TRAINING, _GAINS)
  for arm, scores in paper.items():
    if arm in arms:
      arms[arm]["paper"] = dict(
        zip(("exact_match", "recall_5"), scores, strict=True)
      )
  questions = next(iter(seeds.values()))[0]["questions"]
  summary = {
    "questions": questions,
    "arms": arms,
    "training": training,
    **total,
  }
  files.write_json(workdir / "table.json", summary)
  table = markdown(summary)
  with files.atomic_publish(workdir / "table.md") as tmp:
    tmp.write_text(table + "\n", encoding="utf-8")
  return table


def markdown(summary: Mapping) -> str:
  """The tables as a person reads them."""
  names = ["arm", *_COLUMNS.values(), f"EM - {_FIRST}", "paper EM", "paper R@5"]
  rows = [names]
  for arm, of in summary["arms"].items():
    paper = of.get("paper", {})
    shown = [paper.get(name, "-") for name in ("exact_match", "recall_5")]
    cells = [_cell(of.get(name)) for name in _COLUMNS]
    against = _cell(of.get("exact_match_gain"), "+")
    rows.append([arm, *cells, against, *map(str, shown)])
  count = max(
    len(of["exact_match"]["seeds"]) for of in summary["arms"].values()
  )
  note = (
    f"{summary['questions']} held-out questions; mean ± standard error over"
    f" the seeds ({count}), differences seed by seed. R@5 (gold block), has@5"
    " (answer in the text) and utility (nats, on held-out queries with salient"
    " masks) before fine-tuning, each with a fresh index. The paper's:"
    " percent, NQ dev; its R@5 is has@5."
  )
  parts = [*_table(rows), "", note]
  if summary["training"]:
    parts += ["", *_training_table(summary["training"])]
  return "\n".join(parts)


def _training_table(training: Mapping) -> list[str]:
  less = [f"{_TRAINING[name]} - {_FIRST}" for name in _GAINS]
  rows = [["pre-training", *_TRAINING.values(), *less]]
  for name, of in training.items():
    gains = [_cell(of.get(f"{figure}_gain"), "+") for figure in _GAINS]
    rows.append(
      [name, *(_cell(of.get(figure)) for figure in _TRAINING), *gains]
    )
  note = (
    "While pre-training, the mean of the later half of its steps: the share of"
    " queries whose gold block is among the candidates, utility and loss in"
    " nats, each by the index and the masks that the run has; the index's age"
    " in steps."
  )
  return [*_table(rows), "", note]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
  first, *rest = rows
  rows = [first, ["---"] * len(first), *rest]
  return [f"| {' | '.join(row)} |" for row in rows]


def _later_half(path: pathlib.Path) -> dict[str, float]:
  """Means of a run's metrics.jsonl, by name."""
  rows = curves.read_metrics(path)
  rows = [row for row in rows if 2 * row["step"] > rows[-1]["step"]]
  values = {
    name: [row[name] for row in rows if row.get(name) is not None]
    for name in _TRAINING
  }
  return {name: math.fsum(of) / len(of) for name, of in values.items() if of}


def _summaries(
  seeds: Mapping[str, Sequence[Mapping]],
  names: Mapping[str, str],
  gains: Sequence[str],
) -> dict[str, dict]:
  """Means over the seeds of each arm, and differences to the first arm."""
  first, summaries = seeds.get(_FIRST), {}
  for arm, of in seeds.items():
    figures = summaries[arm] = {}
    for name in names:
      values = [one[name] for one in of if one.get(name) is not None]
      if values:
        figures[name] = {**_pair(mean_and_se(values)), "seeds": values}
    for name in gains if first and arm != _FIRST else ():
      pairs = zip(of, first, strict=True)
      pairs = [(a[name], b[name]) for a, b in pairs if name in a and name in b]
      if pairs:
        gain = paired_difference(*zip(*pairs, strict=True))
        figures[f"{name}_gain"] = _pair(gain)
  return summaries


def _pair(pair: tuple[float, float]) -> dict[str, float | None]:
  return {"mean": pair[0], "se": _or_none(pair[1])}


def _or_none(value: float) -> float | None:
  return None if math.isnan(value) else round(value, 5)


def _cell(figure: Mapping | None, sign: str = "") -> str:
  if figure is None:
    return "-"
  mean = f"{figure['mean']:{sign}.3f}"
  return mean if figure["se"] is None else f"{mean} ± {figure['se']:.3f}"
