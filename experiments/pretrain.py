"""REALM pre-training, or the warm start of its encoder (configs/encoder.py).

python -m experiments.pretrain --config=configs/pretrain.py:demo --workdir=DIR
"""

from experiments import command


def main(config, workdir):
  from experiments import evaluators
  from realm_jax.train import pretrain

  pretrain.pretrain(config, workdir, evaluators.of_pretraining)


if __name__ == "__main__":
  command.run(main, several_processes=True)
