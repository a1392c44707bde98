"""Makes the data of a run: vocabulary, blocks, texts to mask, questions.

  python -m experiments.prepare_data --config=configs/pretrain.py:demo \
      --workdir=DIR [--config.data.corpus=FILE.jsonl --config.data.text=sentences
      --config.data.qa=]

It goes to config.data.dir, by default WORKDIR/data. The demo's takes seconds.
What is there already, made with the same config, is used.
"""

import pathlib

import ml_collections

from experiments import command


def main(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Prepares the data and prints what there is, and what was dropped."""
  from realm_jax.data import drops, prepare

  directory = pathlib.Path(config.data.dir or workdir / "data")
  manifest = prepare.prepare(config.data, directory)
  print(f"{directory}: {prepare.summary(manifest)}")
  print(drops.table(manifest["counts"]["dropped"]))


if __name__ == "__main__":
  command.run(main)
