"""Embeds a run's corpus with its newest params: the next index version.

  python -m experiments.build_index --workdir=RUN [--config.keep=2]

A build that was killed goes on with the same command. Independent jobs share
the work with --shard=0/4, --shard=1/4 and so on; the last to end publishes. On
what is missing then, the command without --shard goes on.

Needs: a run with a checkpoint.
"""

from absl import flags
from ml_collections import config_dict

from experiments import command
from realm_jax.retrieval import defaults as build


def main(config, workdir):
  from realm_jax.train import build_index

  build_index.build_index(
    workdir, config.keep, config.chunk_blocks, flags.FLAGS.shard
  )


if __name__ == "__main__":
  flags.DEFINE_string("shard", "", "i/n: this job's part of the chunks")
  defaults = config_dict.ConfigDict()
  defaults.keep = build.KEEP  # versions kept on disk
  defaults.chunk_blocks = build.CHUNK_BLOCKS  # embedded and written at a time
  command.run(main, defaults=defaults)
