"""One run beside what it must beat, on the same questions, as a table.

Rows: "realm" (the run itself), "shuffled_blocks" (its reader, given other
text than was found), "no_retrieval" (closed book) and "bm25". What a run cannot
do has no row.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from realm_jax import files
from realm_jax.data import qa as qa_files
from realm_jax.evals import baselines, exact_match, qa
from realm_jax.evals.qa import QaScores

_COLUMNS = {
  "exact_match": "EM",
  "f1": "F1",
  "recall_1": "R@1",
  "recall_5": "R@5",
  "recall_20": "R@20",
  "answer_recall_5": "has@5",
  "reader_oracle": "oracle",
}


def compare(
  run, encoder_run, questions: Sequence[qa_files.Question], *, regex: bool
) -> dict[str, QaScores]:
  """Answers the questions in every way that is possible.

  Args:
    run: serve.run.Run.
    encoder_run: the pre-trained serve.run.Run for the closed book, or None.
    questions: to be answered.
    regex: whether the answers are regular expressions.
  """
  scores = _own_scores(run, questions, regex)
  if encoder_run is not None:
    scores["no_retrieval"] = _fill_in(encoder_run, None, questions, regex)
  bm25 = baselines.make_bm25(run.store)
  scores["bm25"] = baselines.evaluate_bm25(bm25, questions, run.store, regex)
  return scores


def _own_scores(run, questions, regex) -> dict[str, QaScores]:
  """The run's own rows: by its reader, else its encoder, else the search."""
  if run.open_qa is not None:
    shuffled, tokens, text_of = baselines.shuffle_blocks(
      run.open_qa, run.tokens
    )
    return {
      "realm": _read(run, run.open_qa, run.tokens, questions, regex),
      "shuffled_blocks": _read(
        run, shuffled, tokens, questions, regex, text_of
      ),
    }
  found = qa.find_blocks(
    run.retrieval,
    run.params,
    run.block_emb,
    [q.question for q in questions],
    run.tokenizer,
    query_len=run.config["query_len"],
  )
  recall = qa.score_found(found, questions, run.store, regex)
  if run.realm is None:
    return {"realm": QaScores([], recall)}
  scores = _fill_in(run, run.block_emb, questions, regex)
  return {"realm": QaScores(scores.predictions, scores.columns | recall)}


def _read(run, open_qa, tokens, questions, regex, text_of=None) -> QaScores:
  return qa.evaluate_reader(
    open_qa,
    run.params,
    run.block_emb,
    tokens,
    questions,
    run.store,
    run.tokenizer,
    query_len=run.config["query_len"],
    regex=regex,
    text_of=text_of,
  )


def _fill_in(run, block_emb, questions, regex) -> QaScores:
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
    regex=regex,
  )


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


def write(
  folder: pathlib.Path, name: str, scores: Mapping[str, QaScores]
) -> list[pathlib.Path]:
  """Writes folder/NAME.json and folder/NAME.<row>.jsonl; returns the paths."""
  summaries = {row: dict(s.summary()) for row, s in scores.items()}
  paths = [folder / f"{name}.json"]
  files.write_json(paths[0], summaries)
  for row, row_scores in scores.items():
    if row_scores.predictions:
      paths.append(folder / f"{name}.{row}.jsonl")
      exact_match.write_predictions(paths[-1], row_scores.predictions)
  return paths


def _cell(mean: float | None, error: float | None) -> str:
  if mean is None:
    return "-"
  if error is None or np.isnan(error):
    return f"{mean:.3f}"
  return f"{mean:.3f} ± {error:.3f}"
