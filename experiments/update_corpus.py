"""Adds, updates and deletes articles of a run's corpus, and of its index.

  python -m experiments.update_corpus --workdir=RUN \\
    --config.add=FILE.jsonl --config.delete=ID,ID

RUN's newest index version must be of its newest params (build_index). Only new
blocks are embedded; the next version has the new corpus, and `ask` and
`evaluate` use it. What the run was trained on stays as it is.

Needs: a run with an index of its newest params, and the articles.
"""

import pathlib

from ml_collections import config_dict

from experiments import command
from realm_jax.config import InputError
from realm_jax.data import corpora
from realm_jax.retrieval import defaults as build


def main(config, workdir):
  from realm_jax.train import update_corpus

  delete = corpora.split_names(config.delete)
  if config.delete_file:
    path = pathlib.Path(config.delete_file)
    if not path.is_file():
      raise InputError(f"--config.delete_file={path}: no such file")
    lines = path.read_text("utf-8").splitlines()
    delete += [line.strip() for line in lines if line.strip()]
  update_corpus.update_corpus(
    workdir,
    add=config.add,
    delete=delete,
    replace=config.replace,
    source_cache=config.source_cache,
    keep=config.keep,
    chunk_blocks=config.chunk_blocks,
  )


if __name__ == "__main__":
  defaults = config_dict.ConfigDict()
  # articles {"id", "title", "text"}; an id that is there gets the new text
  defaults.add = ""
  defaults.delete = ""  # ids of articles, commas between them
  defaults.delete_file = ""  # ids, one a line
  defaults.replace = ""  # articles: the corpus is these and nothing else
  defaults.source_cache = ""  # fetched packages; "": ~/.cache/realm_jax
  defaults.keep = build.KEEP  # versions kept on disk
  defaults.chunk_blocks = build.CHUNK_BLOCKS  # embedded and written at a time
  command.run(main, defaults=defaults)
