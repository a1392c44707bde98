"""A table of the paper, trained anew in our sizes: every arm, several seeds.

  python -m experiments.reproduce --suite=table2 --size=demo --workdir=DIR \\
    [--seeds=0,1,2] [--arms=realm,stale] [--config.KEY=VALUE ...]

Ends with DIR/table.json, DIR/table.md and the table: means and standard errors
over the seeds, and each arm's difference to "realm", seed by seed. What is done
isn't done again, so that arms and seeds can be added later. --suite=S --size=Z
is short for --config=configs/S.py:Z. Without --workdir: runs/S-Z.

Needs: nothing but a network, the first time; hours at demo size.
"""

import re
import sys

from experiments import command
from experiments.phases import Phase, Phases


def main(config, workdir):
  from experiments import arms
  from realm_jax import run_config
  from realm_jax.data import prepare
  from realm_jax.evals import ablations

  names = arms.names(config)
  chosen = config.to_dict()
  for name in ("seeds", "arms"):
    del chosen[name]
  run_config.claim(workdir, chosen)
  seeds = [arms.Seed(config, workdir, seed) for seed in config.seeds]
  with Phases(workdir) as phases:
    data = config.data, workdir / "data"
    phases.run(Phase("prepare", prepare.prepare, data))
    arms.run(phases, (pair for seed in seeds for pair in seed.work(names)))
    total = phases.total()
  paths = {name: [seed.measured(name) for seed in seeds] for name in names}
  runs = {
    name: [seed.metrics(name) for seed in seeds]
    for name in arms.pretrainings(config, names)
  }
  table = ablations.write(workdir, paths, runs, config.paper.to_dict(), total)
  print(table)


def in_full(argv: list[str]) -> list[str]:
  """The arguments, with what the short ones stand for in their place."""
  short = {"suite": "table2", "size": "demo"}
  rest = []
  for arg in argv:
    name, equals, value = arg.lstrip("-").partition("=")
    if arg.startswith("-") and equals and name in short:
      short[name] = value
    else:
      rest.append(re.sub("^--?(seeds|arms)=", r"--config.\1=", arg))
  suite, size = short["suite"], short["size"]
  if not any(re.match("--?config(=|$)", arg) for arg in rest):
    rest.insert(1, f"--config=configs/{suite}.py:{size}")
  if not any(re.match("--?workdir(=|$)", arg) for arg in rest):
    rest.append(f"--workdir=runs/{suite}-{size}")
  return rest


if __name__ == "__main__":
  command.use_huge_pages()  # before the arguments are changed
  sys.argv = in_full(sys.argv)
  command.run(main)
