"""Scores questions against a run, beside BM25 and the closed book.

  python -m experiments.evaluate --workdir=RUN --config.qa=FILE

FILE is JSONL or TSV; without it, the test questions of the run's own data.
Prints a table and writes RUN/predictions/FILE.json (the figures) and
FILE.<row>.jsonl (the answers with their evidence).

Needs: a run with an index (build_index), and questions.
"""

import pathlib

from ml_collections import config_dict

from experiments import command
from realm_jax.data import qa
from realm_jax.evals import comparison
from realm_jax.serve.run import Run, open_run


def main(config, workdir):
  run = open_run(workdir, config.index)
  path = pathlib.Path(config.qa or run.data_dir / "qa" / "test.jsonl")
  questions = qa.read_qa(path)[: config.num_questions or None]
  scores = comparison.compare(
    run, _encoder_run(config, run), questions, regex=config.regex
  )
  print(f"{len(questions)} questions of {path}, {run.workdir} step {run.step}")
  print(comparison.table(scores))
  name = path.name.partition(".")[0]
  written = comparison.write(run.workdir / "predictions", name, scores)
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
  defaults.qa = ""  # QA file; "": the test questions of the run's own data
  # another index version than the newest, with its blocks: its number, its
  # directory, or a run's
  defaults.index = ""
  defaults.num_questions = 0  # only the first so many; 0: all
  defaults.regex = False  # answers are regular expressions (CuratedTREC)
  # pre-trained run for the closed book; "": the one a fine-tuned run began with
  defaults.encoder = ""
  command.run(main, defaults=defaults)
