"""Reads every byte of a run's checkpoints and index versions.

  python -m experiments.verify --workdir=RUN

A line for each that is as it was written; what is not is named, with what to
do, and the exit code is 2.

Needs: a run.
"""

from ml_collections import config_dict

from experiments import command


def main(config, workdir):
  del config
  from realm_jax.train import verify

  for line in verify.verify(workdir):
    print(line, flush=True)


if __name__ == "__main__":
  command.run(main, defaults=config_dict.ConfigDict())
