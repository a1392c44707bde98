"""Compares two runs question by question, on the same questions.

  python -m experiments.compare RUN_A RUN_B

Each is a run that experiments.evaluate has scored, or a file of its
per_question/. Of every metric that both have: the means, their difference with
its 95% interval (paired bootstrap) and the p-value of a paired test, two-sided:
McNemar's exact test where a question is right or wrong (exact match, recall), a
randomisation test otherwise (F1). Every row is a test by itself: of twenty
about one has p < .05 by chance.

Needs: two runs that evaluate has scored.
"""

from ml_collections import config_dict

from experiments import command
from realm_jax.config import InputError
from realm_jax.evals import per_question, uncertainty


def main(config, workdir, runs):
  if len(runs) != 2:
    raise InputError(f"{len(runs)} runs given: wanted two, RUN_A RUN_B")
  paths = [per_question.find_scores(workdir / run, config.name) for run in runs]
  pair = per_question.read_pair(*paths)
  found = uncertainty.differences(*pair, config.resamples, config.seed)
  print(f"A: {paths[0]}\nB: {paths[1]}\n")
  print(uncertainty.table(found))


if __name__ == "__main__":
  defaults = config_dict.ConfigDict()
  # of the files in per_question/, such as test.realm; "": the only one of
  # the run itself, FILE.realm
  defaults.name = ""
  defaults.resamples = 10_000  # of bootstrap and randomisation
  defaults.seed = 0  # of both
  command.run(main, defaults=defaults, words="runs", default_workdir=".")
