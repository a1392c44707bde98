"""Writes report.html: one page about a run or a demo, without network.

  python -m experiments.report --workdir=DIR

Curves, tables and sample questions of all runs under DIR. Of a run with several
index versions, also the questions whose evidence changed most between its
oldest and its newest one; --config.changes=0 leaves them out, and needs no model.

Needs: a run, or the folder of a demo.
"""

import sys

from ml_collections import config_dict

from experiments import command
from realm_jax.config import InputError
from realm_jax.evals import report


def main(config, workdir):
  changes = _changes(config, workdir) if config.changes else {}
  print(report.write_report(workdir, config.path or None, changes))


def _changes(config, workdir):
  from realm_jax.serve import churn

  found = {}
  for name, run in report.find_runs(workdir):
    try:
      found[run] = churn.find_changes(
        run, config.k, config.queries, config.changes
      )
    except InputError as e:  # the rest of the page can be written
      print(f"{name}: no changed evidence shown: {e}", file=sys.stderr)
  return found


if __name__ == "__main__":
  defaults = config_dict.ConfigDict()
  defaults.path = ""  # where to; "": DIR/report.html
  defaults.changes = 5  # questions shown whose evidence changed; 0: none
  defaults.queries = 200  # asked of both versions, to find them
  defaults.k = 5  # blocks found for a question
  command.run(main, defaults=defaults)
