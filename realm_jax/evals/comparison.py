"""One run beside what it must beat, on the same questions, as a table.

Rows: "realm" (the run itself), "shuffled_blocks" (its reader, given other
text than was found), "no_retrieval" (closed book), "bm25", and "run_file" (a
ranking that another system wrote). What a run cannot do has no row.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from realm_jax import files
from realm_jax.data import qa as qa_files
from realm_jax.evals import (
  baselines,
  exact_match,
  per_question,
  qa,
  retrieval,
  trec,
  uncertainty,
)
from realm_jax.evals.qa import QaScores
from realm_jax.evals.retrieval import Found

_COLUMNS = {
  "exact_match": "EM",
  "f1": "F1",
  "recall_1": "R@1",
  "recall_5": "R@5",
  "recall_20": "R@20",
  "answer_recall_5": "has@5",
  "reader_oracle": "oracle",
}
_RECALLS = {"recall": "gold block", "answer_recall": "has answer"}


def compare(
  run,
  encoder_run,
  questions: Sequence[qa_files.Question],
  cutoffs: Sequence[int] = retrieval.CUTOFFS,
  run_file: Found | None = None,
  shuffled: bool = True,
) -> dict[str, QaScores]:
  """Answers the questions in every way that is possible.

  Args:
    run: serve.run.Run.
    encoder_run: the pre-trained serve.run.Run for the closed book, or None.
    questions: to be answered.
    cutoffs: the k of recall at k.
    run_file: another system's ranking of run's blocks, or None; of the
      questions and more after them.
    shuffled: whether the reader is given other blocks' text, too.
  """
  scores = {"realm": _own_scores(run, questions, cutoffs)}
  if shuffled and run.open_qa is not None:
    open_qa, tokens, text_of = baselines.shuffle_blocks(run.open_qa, run.tokens)
    other = dataclasses.replace(run, open_qa=open_qa, tokens=tokens)
    scores["shuffled_blocks"] = qa.score_run(other, questions, text_of)
  if encoder_run is not None:
    scores["no_retrieval"] = _fill_in(encoder_run, None, questions)
  bm25 = baselines.make_bm25(run.store)
  scores["bm25"] = baselines.evaluate_bm25(bm25, questions, run.store, cutoffs)
  if run_file is not None:
    scores["run_file"] = score_ranking(
      Found(*(x[: len(questions)] for x in run_file)),
      questions,
      run.store,
      cutoffs,
    )
  return scores


def score_ranking(
  found: Found,
  questions: Sequence[qa_files.Question],
  store,
  cutoffs: Sequence[int],
) -> QaScores:
  """Recall of a ranking that nobody reads."""
  recall = qa.score_found(found.ids, questions, store, cutoffs)
  return QaScores([], recall, found)


def _own_scores(run, questions, cutoffs) -> QaScores:
  """The run's own row: by its reader, else its encoder, else the search."""
  found = qa.find_by_run(run, questions, max(cutoffs))
  own = score_ranking(found, questions, run.store, cutoffs)
  if run.open_qa is not None:
    answered = qa.score_run(run, questions)
  elif run.realm is not None:
    answered = _fill_in(run, run.block_emb, questions)
  else:
    return own
  columns = answered.columns | own.columns
  return QaScores(answered.predictions, columns, found)


def _fill_in(run, block_emb, questions) -> QaScores:
  return baselines.evaluate_fill_in(
    run.realm,
    run.params,
    block_emb,
    run.tokens,
    questions,
    run.store,
    run.tokenizer,
    query_len=run.config["query_len"],
    max_masks=run.config["max_masks"],
    template=run.config["mask_template"],
  )


def read_more(run, reader_beam_size: int):
  """The same run, its reader reading so many blocks of each question."""
  reader = run.open_qa.reader
  config = dataclasses.replace(reader.config, reader_beam_size=reader_beam_size)
  open_qa = dataclasses.replace(run.open_qa, reader=reader.clone(config=config))
  return dataclasses.replace(run, open_qa=open_qa)


def table(scores: Mapping[str, QaScores]) -> str:
  """Means ± standard errors, and the paired differences to "realm"."""
  summaries = {name: dict(s.summary()) for name, s in scores.items()}
  shown = [
    c for c in _COLUMNS if any(c in summary for summary in summaries.values())
  ]
  lines = ["".join([f"{'':16}", *(f"{_COLUMNS[c]:>14}" for c in shown)])]
  for name, summary in summaries.items():
    cells = [_cell(summary.get(c), summary.get(f"{c}_se")) for c in shown]
    lines.append("".join([f"{name:16}", *(f"{cell:>14}" for cell in cells)]))
  ours = scores["realm"].columns.get("exact_match")
  for name, other in scores.items():
    theirs = other.columns.get("exact_match")
    if name != "realm" and ours is not None and theirs is not None:
      mean, error = exact_match.paired_difference(ours, theirs)
      lines.append(f"EM, realm - {name}: {mean:+.3f} ± {error:.3f} (paired)")
  return "\n".join(lines)


def recall_table(scores: Mapping[str, QaScores], cutoffs: Sequence[int]) -> str:
  """Recall at every k of every ranking."""
  head = "".join(f"{f'@{k}':>8}" for k in cutoffs)
  lines = [f"{'recall':28}{head}"]
  for row, row_scores in scores.items():
    summary = dict(row_scores.summary())
    for name, words in _RECALLS.items():
      means = [summary.get(f"{name}_{k}") for k in cutoffs]
      if row_scores.found is not None and None not in means:
        cells = "".join(f"{mean:8.3f}" for mean in means)
        lines.append(f"{f'{row}, {words}':28}{cells}")
  return "\n".join(lines)


def write(
  workdir: pathlib.Path,
  name: str,
  questions: Sequence[qa_files.Question],
  scores: Mapping[str, QaScores],
  resamples: int = 0,
  depth: int = 0,
) -> list[pathlib.Path]:
  """Writes all that was measured, and returns the paths.

  predictions/NAME.json (means, standard errors, with resamples the bounds
  METRIC_low and METRIC_high), of each row predictions/NAME.ROW.jsonl (answers
  with evidence) and per_question/NAME.ROW.jsonl (all scores), with a depth
  runs/NAME.ROW.trec (the ranking).

  Args:
    workdir: of the run.
    name: of the questions.
    questions: B, as scored.
    scores: of compare.
    resamples: of the bootstrap; 0: no bounds.
    depth: blocks of a question in a run file; 0: no run files.
  """
  summaries = {row: dict(s.summary()) for row, s in scores.items()}
  for row, row_scores in scores.items():
    if resamples:
      bounds = uncertainty.intervals(row_scores.columns, resamples)
      for metric, (low, high) in bounds.items():
        if metric in summaries[row]:
          summaries[row] |= {f"{metric}_low": low, f"{metric}_high": high}
  predictions = workdir / "predictions"
  paths = [predictions / f"{name}.json"]
  files.write_json(paths[0], summaries)
  for row, row_scores in scores.items():
    if row_scores.predictions:
      paths.append(predictions / f"{name}.{row}.jsonl")
      exact_match.write_predictions(paths[-1], row_scores.predictions)
    paths.append(workdir / per_question.FOLDER / f"{name}.{row}.jsonl")
    per_question.write_scores(paths[-1], questions, row_scores.columns)
    if depth and row_scores.found is not None and row != "run_file":
      paths.append(workdir / "runs" / f"{name}.{row}.trec")
      trec.write_run(
        paths[-1], questions, row_scores.found, tag=row, depth=depth
      )
  return paths


def _cell(mean: float | None, error: float | None) -> str:
  if mean is None:
    return "-"
  if error is None or np.isnan(error):
    return f"{mean:.3f}"
  return f"{mean:.3f} ± {error:.3f}"
