"""Embeds a run's corpus with its newest params: the next index version.

python -m experiments.build_index --workdir=RUN [--config.keep=2]
"""

from ml_collections import config_dict

from experiments import command


def main(config, workdir):
  from realm_jax.train import build_index

  build_index.build_index(workdir, config.keep)


if __name__ == "__main__":
  command.run(main, defaults=config_dict.create(keep=2))
