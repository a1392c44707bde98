"""Serves a page to ask a run questions and to watch runs.

  python -m experiments.serve --workdir=DIR

DIR is a run's or a demo's directory, finished or under way. The page shows the
answer with its evidence, two index versions or runs side by side, and the
curves of all runs under DIR; /openapi.json describes its JSON API. Only this
machine reaches it, unless --config.address and --config.hosts say otherwise;
then visitors must know the token in $REALM_SERVE_TOKEN.

Needs: a run with an index, or a folder of such runs.
"""

import os
import sys

from ml_collections import config_dict

from experiments import command
from realm_jax.serve.limits import Limits


def main(config, workdir):
  from realm_jax.serve import server

  options = server.Options(
    address=config.address,
    port=config.port,
    hosts=tuple(name for name in config.hosts.split(",") if name),
    token=os.environ.get(server.TOKEN, ""),
    batch_size=config.batch_size,
    limits=Limits(waiting=config.max_waiting, seconds=config.seconds),
  )
  server.serve(workdir, options, _note)


def _note(text):
  print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
  defaults = config_dict.ConfigDict()
  defaults.address = "127.0.0.1"  # the IP address to listen at
  defaults.port = 8765  # 0: any that is free
  defaults.hosts = ""  # names it is reached by, beside localhost: A,B
  defaults.batch_size = 8  # questions answered at a time
  defaults.max_waiting = (
    Limits.waiting
  )  # questions; the next is told to come again
  defaults.seconds = Limits.seconds  # a request may take
  command.run(main, defaults=defaults)
