"""Fine-tunes retriever and reader on open-domain QA.

  python -m experiments.finetune_qa --config=configs/finetune.py:demo \\
    --workdir=DIR --config.init.embedder=RUN --config.init.encoder=RUN

Needs: prepared data with questions, and a run of pretrain to start from.
"""

from absl import flags

from experiments import command


def main(config, workdir):
  from experiments import evaluators
  from realm_jax.train import finetune, profile

  steps = profile.parse(flags.FLAGS.profile, config.train.num_steps)
  finetune.finetune(config, workdir, evaluators.of_finetuning, steps)


if __name__ == "__main__":
  command.profile_flag()
  command.run(main, several_processes=True)
