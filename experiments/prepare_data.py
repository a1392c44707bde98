"""Makes the data of a run: vocabulary, blocks, texts to mask, questions.

  python -m experiments.prepare_data --config=configs/pretrain.py:demo \
      --workdir=DIR [--config.data.corpus=FILE.jsonl --config.data.text=sentences
      --config.data.qa=]

It goes to config.data.dir, by default WORKDIR/data. The demo's takes seconds.
What is there already, made with the same config, is used, and what a kill left
is gone on with. What was dropped and why is printed, and kept in drops.json.

Wikipedia: a folder of dumps (pages-articles), and --config.data.workers=N, or
--config.data.runner=beam with --config.data.beam_args="--runner=…"; about 25
hours of a core (benchmarks/prepare.py), and while it is made four times the
disk of its text.

Needs: a corpus. The demo's comes from the package index, once.
"""

import pathlib

import ml_collections

from experiments import command


def main(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Prepares the data and prints what there is, and what was dropped."""
  from realm_jax import files
  from realm_jax.data import drops, prepare

  directory = pathlib.Path(config.data.dir or workdir / "data")
  manifest = prepare.prepare(config.data, directory)
  print(f"{directory}: {prepare.summary(manifest)}")
  if (counted := directory / drops.FILE).exists():  # an older one has none
    print(drops.table(files.read_json(counted)))


if __name__ == "__main__":
  command.run(main)
