"""REALM pre-training, or the warm start of its encoder (configs/encoder.py).

  python -m experiments.pretrain --config=configs/pretrain.py:demo --workdir=DIR

Needs: prepared data; a small model also the warm starts, by train_ict and by
this command with configs/encoder.py.
"""

from absl import flags

from experiments import command


def main(config, workdir):
  from experiments import evaluators
  from realm_jax.train import pretrain, profile

  steps = profile.parse(flags.FLAGS.profile, config.train.num_steps)
  pretrain.pretrain(config, workdir, evaluators.of_pretraining, steps)


if __name__ == "__main__":
  command.profile_flag()
  command.run(main, several_processes=True)
