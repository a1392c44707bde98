"""Trains an embedder by the inverse cloze task, the warm start of REALM.

  python -m experiments.train_ict --config=configs/ict.py:demo --workdir=DIR

Needs: prepared data (prepare_data).
"""

from absl import flags

from experiments import command


def main(config, workdir):
  from realm_jax.train import ict, profile

  steps = profile.parse(flags.FLAGS.profile, config.train.num_steps)
  ict.train_ict(config, workdir, steps)


if __name__ == "__main__":
  command.profile_flag()
  command.run(main, several_processes=True)
