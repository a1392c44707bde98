"""The arms of an ablation, over several seeds, as a table.

An arm is judged after fine-tuning (exact match), and by what it was fine-tuned
from: its retriever (zero-shot recall, as the paper's), and what that is worth
to its encoder (retrieval utility).
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

from realm_jax import files
from realm_jax.data import qa as qa_files
from realm_jax.evals import pretrain, qa
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
  paper: Mapping[str, Sequence[float]],
  total: Mapping[str, float],
) -> str:
  """Publishes WORKDIR/table.json and table.md.

  Args:
    workdir: of the suite.
    paths: arm -> what `measure` wrote, a file a seed.
    paper: arm -> exact match and recall@5 of the paper, percent.
    total: what it cost.

  Returns:
    The table.
  """
  seeds = {arm: [files.read_json(p) for p in of] for arm, of in paths.items()}
  arms = {arm: _summary(of, seeds.get(_FIRST)) for arm, of in seeds.items()}
  for arm, scores in paper.items():
    if arm in arms:
      arms[arm]["paper"] = dict(
        zip(("exact_match", "recall_5"), scores, strict=True)
      )
  questions = next(iter(seeds.values()))[0]["questions"]
  summary = {"questions": questions, "arms": arms, **total}
  files.write_json(workdir / "table.json", summary)
  table = markdown(summary)
  with files.atomic_publish(workdir / "table.md") as tmp:
    tmp.write_text(table + "\n", encoding="utf-8")
  return table


def markdown(summary: Mapping) -> str:
  """The table as a person reads it."""
  names = ["arm", *_COLUMNS.values(), f"EM - {_FIRST}", "paper EM", "paper R@5"]
  rows = [names, ["---"] * len(names)]
  for arm, of in summary["arms"].items():
    paper = of.get("paper", {})
    shown = [paper.get(name, "-") for name in ("exact_match", "recall_5")]
    cells = [_cell(of.get(name)) for name in _COLUMNS]
    against = _cell(of.get("exact_match_gain"), "+")
    rows.append([arm, *cells, against, *map(str, shown)])
  count = max(
    len(of["exact_match"]["seeds"]) for of in summary["arms"].values()
  )
  lines = [f"| {' | '.join(row)} |" for row in rows]
  return "\n".join(
    [
      *lines,
      "",
      f"{summary['questions']} held-out questions; mean ± standard error over"
      f" the seeds ({count}), differences seed by seed. R@5 (gold block), has@5"
      " (answer in the text) and utility (nats, on held-out queries with salient"
      " masks) before fine-tuning, each with a fresh index. The paper's:"
      " percent, NQ dev; its R@5 is has@5.",
    ]
  )


def _summary(seeds: Sequence[Mapping], first: Sequence[Mapping] | None) -> dict:
  """Means over the seeds of an arm; `first` has those of the first arm."""
  figures = {}
  for name in _COLUMNS:
    values = [of[name] for of in seeds if of.get(name) is not None]
    if values:
      figures[name] = {**_pair(mean_and_se(values)), "seeds": values}
  if first and first is not seeds:
    ours, theirs = ([of["exact_match"] for of in arm] for arm in (seeds, first))
    figures["exact_match_gain"] = _pair(paired_difference(ours, theirs))
  return figures


def _pair(pair: tuple[float, float]) -> dict[str, float | None]:
  return {"mean": pair[0], "se": _or_none(pair[1])}


def _or_none(value: float) -> float | None:
  return None if math.isnan(value) else round(value, 5)


def _cell(figure: Mapping | None, sign: str = "") -> str:
  if figure is None:
    return "-"
  mean = f"{figure['mean']:{sign}.3f}"
  return mean if figure["se"] is None else f"{mean} ± {figure['se']:.3f}"
