"""What the knowledge swap shows: one reader asked with either corpus.

Each answer is judged by both books. A reader that knows by its corpus is right
by the book that it searches and wrong by the other, where the two differ.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from realm_jax import files
from realm_jax.data.swap import BOOKS, GROUPS, SPLITS, Asked
from realm_jax.evals import exact_match
from realm_jax.evals import qa as qa_eval
from realm_jax.evals.exact_match import Prediction, mean_and_se

_MEASURED = "measured_swap.json"
_CUTOFFS = (1, 5)
_EXAMPLES = 8


def measure(runs: Mapping, asked: Sequence[Asked], workdir: pathlib.Path):
  """Writes WORKDIR/measured_swap.json and the answers beside it.

  Args:
    runs: {book of swap.BOOKS: the run with the index of that book}.
    asked: what is asked of both.
    workdir: of the swap.
  """
  columns: dict[str, np.ndarray] = {}
  answers = {}
  for searched in BOOKS:
    questions = [a.by_book[searched] for a in asked]
    scores = _ask(runs[searched], questions)
    answers[searched] = scores.predictions
    path = workdir / "predictions" / f"{searched}_index.jsonl"
    exact_match.write_predictions(path, scores.predictions)
    for judge in BOOKS:
      columns[f"{searched} index, {judge} answer"] = _right(
        scores.predictions, [a.by_book[judge] for a in asked]
      )
    for k in _CUTOFFS:
      columns[f"{searched} index, recall_{k}"] = scores.columns[f"recall_{k}"]
  measured = {
    "groups": {
      group: {split: _means(columns, asked, group, split) for split in SPLITS}
      for group in GROUPS
    },
    "examples": _examples(asked, answers),
  }
  files.write_json(workdir / _MEASURED, measured)


def write(workdir: pathlib.Path, seconds: Mapping, total: Mapping) -> dict:
  """Publishes summary.json: what was measured, and what it cost.

  Args:
    workdir: of the swap.
    seconds: of each phase; one ran beside another.
    total: "seconds_total" and "peak_memory_gb".
  """
  measured = files.read_json(workdir / _MEASURED)
  summary = {**measured, "seconds": seconds, **total}
  files.write_json(workdir / "summary.json", summary)
  return summary


def table(summary: Mapping) -> str:
  """The summary as a person reads it."""
  lines = ["", "exact match ± standard error", ""]
  lines.append(f"{'':34}{'':>6}  {'old index':^28}  {'new index':^28}")
  heads = f"{'old answer':>13} {'new answer':>13} " * len(BOOKS)
  lines.append(f"{'':34}{'asked':>6}  {heads}")
  for group in GROUPS:
    lines.append(group)
    for split in SPLITS:
      values = summary["groups"][group][split]
      cells = [
        _cell(values[f"{searched} index, {judge} answer"])
        for searched in BOOKS
        for judge in BOOKS
      ]
      count = values["count"]
      lines.append(f"  {SPLITS[split]:32}{count:>6}  " + " ".join(cells))
  lines += ["", "of held-out countries:"]
  for example in summary["examples"]:
    old, new = (example[f"{book} index"] for book in BOOKS)
    lines.append(f"  {example['question']}  {old}  ->  {new}")
  lines += ["", f"{summary['seconds_total']:.0f} s"]
  return "\n".join(lines)


def _ask(run, questions) -> qa_eval.QaScores:
  scores = qa_eval.score_run(run, questions)
  scores.columns.update(qa_eval.recall_of_run(run, questions, _CUTOFFS))
  return scores


def _right(predictions: Sequence[Prediction], questions) -> np.ndarray:
  pairs = zip(predictions, questions, strict=True)
  return np.array([exact_match.is_right(p.prediction, q) for p, q in pairs])


def _means(columns, asked, group, split) -> dict:
  rows = np.array([(a.group, a.split) == (group, split) for a in asked])
  means = {name: mean_and_se(v[rows]) for name, v in columns.items()}
  return {"count": int(rows.sum())} | {
    name: [None if math.isnan(x) else round(x, 4) for x in pair]
    for name, pair in means.items()
  }


def _examples(asked, answers) -> list[dict]:
  """The first changed leaders of held-out countries, right or wrong."""
  wanted = (GROUPS[0], next(iter(SPLITS)))
  rows = [i for i, a in enumerate(asked) if (a.group, a.split) == wanted]
  return [
    {"question": asked[i].by_book[BOOKS[0]].question}
    | {f"{book} index": answers[book][i].prediction for book in BOOKS}
    for i in rows[:_EXAMPLES]
  ]


def _cell(pair) -> str:
  mean, error = (math.nan if x is None else x for x in pair)
  return f"{mean:6.3f} ±{error:5.3f}"
