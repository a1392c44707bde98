"""The index versions of a run.

  python -m experiments.index --workdir=RUN list
  python -m experiments.index --workdir=RUN verify [VERSION …]
  python -m experiments.index --workdir=RUN diff VERSION VERSION
  python -m experiments.index --workdir=RUN gc [--config.keep=2]

list: what made them, their size, and whether training searched them. verify:
whether every byte is what was written; all of them, where none is named. diff:
what changed in the blocks that queries find, and in the rows. gc: deletes old
versions and what killed writers left.

Needs: a run with an index.
"""

from ml_collections import config_dict

from experiments import command
from realm_jax.config import InputError
from realm_jax.retrieval import catalog
from realm_jax.retrieval import defaults as build

_WORDS = "list, verify, diff or gc"


def main(config, workdir, words):
  what, *versions = words or [""]
  wrong = [v for v in versions if what == "verify" and not v.isdecimal()]
  count = {"list": 0, "gc": 0, "diff": 2, "verify": len(versions)}.get(what)
  if count is None or count != len(versions) or wrong:
    raise InputError(
      f"{' '.join(words)!r}: wanted list, verify [VERSION …], diff VERSION"
      " VERSION or gc, such as: --workdir=RUN verify 3"
    )
  if what == "list":
    print(catalog.table(workdir))
  elif what == "verify":
    for line in catalog.verify(workdir, [int(v) for v in versions]):
      print(line, flush=True)
  elif what == "gc":
    gone = catalog.collect(workdir, config.keep)
    print(f"deleted: {', '.join(gone) or 'nothing'}")
  else:
    from realm_jax.serve import churn
    from realm_jax.serve.run import open_run

    runs = [open_run(workdir, version) for version in versions]
    print(churn.in_words(churn.measure(*runs, config.k, config.queries)))


if __name__ == "__main__":
  defaults = config_dict.ConfigDict()
  defaults.keep = build.KEEP  # versions that gc keeps
  defaults.k = 10  # blocks that diff finds for a query
  defaults.queries = 256  # that diff asks: sentences of the corpus
  command.run(main, defaults=defaults, words=_WORDS)
