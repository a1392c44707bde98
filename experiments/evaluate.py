"""Scores questions against a run, beside BM25 and the closed book.

  python -m experiments.evaluate --workdir=RUN --config.qa=FILE

FILE is JSONL, TSV or tfds:NAME:SPLIT; without it, the test questions of the
run's own data. Prints tables and writes RUN/predictions/FILE.json (the
figures), FILE.<row>.jsonl (the answers with their evidence),
RUN/per_question/FILE.<row>.jsonl (for experiments.compare) and
RUN/runs/FILE.<row>.trec (the rankings, as other tools read them).

Needs: a run with an index (build_index), and questions.
"""

import pathlib
import re

from ml_collections import config_dict

from experiments import command
from realm_jax.data import qa, qa_choice
from realm_jax.evals import comparison, retrieval, trec
from realm_jax.serve.run import Run, open_run


def main(config, workdir):
  run = open_run(workdir, config.index)
  if config.reader_beam_size and run.open_qa is not None:
    run = comparison.read_more(run, config.reader_beam_size)
  source = config.qa or str(run.data_dir / "qa" / "test.jsonl")
  every = qa.read_qa(source, config.regex)
  questions, ranking = every[: config.num_questions or None], None
  if config.run_file:
    ranking = trec.read_run(config.run_file, every, len(run.store))
  cutoffs = retrieval.all_cutoffs(len(run.store))
  scores = comparison.compare(
    run, _encoder_run(config, run), questions, cutoffs, ranking
  )
  print(
    f"{len(questions)} questions of {source}, {run.workdir} step {run.step}"
  )
  if faults := qa_choice.choose(questions).dropped:
    print("as they are, though there are", qa_choice.describe(faults))
  print(comparison.table(scores))
  print("\n" + comparison.recall_table(scores, cutoffs))
  name = config.name or re.sub(
    r"[^\w-]+", "_", pathlib.Path(source).name.partition(".")[0]
  )
  written = comparison.write(
    run.workdir, name, questions, scores, config.resamples, config.run_depth
  )
  print("written:", ", ".join(str(p) for p in written))


def _encoder_run(config, run: Run) -> Run | None:
  """The pre-trained run that answers without evidence."""
  if run.realm is not None:
    return run
  named = config.encoder or run.config["init"]["encoder"]
  if not named:
    return None
  beside = run.workdir.parent / pathlib.Path(named).name  # a moved folder
  return open_run(named if pathlib.Path(named).exists() else beside)


if __name__ == "__main__":
  defaults = config_dict.ConfigDict()
  defaults.qa = ""  # questions; "": the test questions of the run's own data
  # another index version than the newest, with its blocks: its number, its
  # directory, or a run's
  defaults.index = ""
  defaults.name = ""  # of the files written; "": FILE's
  defaults.num_questions = 0  # only the first so many; 0: all
  defaults.regex = False  # answers are regular expressions (CuratedTREC)
  # pre-trained run for the closed book; "": the one a fine-tuned run began with
  defaults.encoder = ""
  defaults.reader_beam_size = 0  # blocks that are read; 0: as in training
  defaults.run_file = ""  # TREC run file of another system, to be scored too
  defaults.run_depth = 1000  # blocks of a question in a run file
  defaults.resamples = 1000  # of the bootstrap's intervals
  command.run(main, defaults=defaults)
