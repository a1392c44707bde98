"""Compares runs question by question, on the same questions.

  python -m experiments.compare RUN_A RUN_B [RUN_C ...]

Each is a run that experiments.evaluate has scored, or a file of its
per_question/. Of every metric that they have in common: the means with 95%
intervals (bootstrap), and of each run the difference to the first with its
interval (paired bootstrap) and the p-value of a paired test, two-sided:
McNemar's exact test where a question is right or wrong (exact match, recall), a
randomisation test otherwise (F1). Every row is a test by itself: of twenty
about one has p < .05 by chance. Prints the differences, and writes all to
compare.html, with the runs' curves over each other and what their configs
differ in.

Needs: runs that evaluate has scored.
"""

from ml_collections import config_dict

from experiments import command
from realm_jax.evals import compare_report, per_question


def main(config, workdir, runs):
  paths = [per_question.find_scores(workdir / run, config.name) for run in runs]
  compared = compare_report.compare(paths, config.resamples, config.seed)
  print(compare_report.table(compared))
  words = " ".join(runs)
  words = f"python -m experiments.compare --workdir={workdir} {words}"
  path = compare_report.write(workdir / config.path, compared, words)
  print(f"\nwritten: {path}")


if __name__ == "__main__":
  defaults = config_dict.ConfigDict()
  # of the files in per_question/, such as test.realm; "": the only one of
  # the run itself, FILE.realm
  defaults.name = ""
  defaults.path = "compare.html"  # the page, in WORKDIR
  defaults.resamples = 10_000  # of bootstrap and randomisation
  defaults.seed = 0  # of both
  command.run(main, defaults=defaults, words="runs", default_workdir=".")
