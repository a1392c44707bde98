"""Embeds the corpus for a run that is under way, as its checkpoints come.

  python -m experiments.refresh_worker --workdir=RUN [--id=NAME]

For runs with --config.refresh.mode=worker. As many as you like, started and
killed at any time, on any machine that sees RUN; each has an id of its own, by
default its machine's name. It ends when the run has ended.

Needs: a run of pretrain or finetune_qa with refresh.mode=worker.
"""

import platform

from absl import flags
from ml_collections import config_dict

from experiments import command
from realm_jax.retrieval import defaults as build


def main(config, workdir):
  from realm_jax.train import worker

  name = flags.FLAGS.id or platform.node()
  options = worker.Options(
    name=name, parent=flags.FLAGS.parent, **config.to_dict()
  )
  worker.work(workdir, options)


if __name__ == "__main__":
  flags.DEFINE_string("id", "", "this worker's name, no other one's")
  flags.DEFINE_integer("parent", 0, "the process that this one ends with")
  defaults = config_dict.ConfigDict()
  defaults.chunk_blocks = build.CHUNK_BLOCKS  # embedded and written at a time
  defaults.poll_seconds = 2.0  # looks for a checkpoint so often
  defaults.wait_seconds = 3600.0  # without a new checkpoint; then it ends
  defaults.retries = 10  # failures in a row that it gets over
  defaults.backoff_seconds = 1.0  # after the first; twice as long each time
  command.run(main, defaults=defaults)
