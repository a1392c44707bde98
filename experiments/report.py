"""Writes report.html: one page about a run or a demo, without network.

  python -m experiments.report --workdir=DIR

Needs: a run, or the folder of a demo.
"""

from ml_collections import config_dict

from experiments import command
from realm_jax.evals import report


def main(config, workdir):
  print(report.write_report(workdir, config.path or None))


if __name__ == "__main__":
  defaults = config_dict.ConfigDict()
  defaults.path = ""  # where to; "": DIR/report.html
  command.run(main, defaults=defaults)
