"""Trains an embedder by the inverse cloze task, the warm start of REALM.

  python -m experiments.train_ict --config=configs/ict.py:demo --workdir=DIR

Needs: prepared data (prepare_data).
"""

from experiments import command

_PROFILE = command.profile_flag()


def main(config, workdir):
  from realm_jax.train import ict, profile

  steps = profile.parse(_PROFILE.value, config.train.num_steps)
  ict.train_ict(config, workdir, steps)


if __name__ == "__main__":
  command.run(main, several_processes=True)
