"""How a step grows with the corpus and with K, and what padding costs.

  python -m benchmarks.scaling --config=configs/pretrain.py:demo --workdir=DIR

DIR is the workdir of a run whose data is prepared (the leads); without one,
made-up words of the config's sizes are. The step is the training step without
a refresh (what that costs grows with the corpus by its own rule: benchmarks.step
has its part); its index has random rows, its blocks are the corpus's, again and
again up to N.

Columns of the table:
  step      ms, median over interleaved rounds of every size, each on a batch of
            its own
  of first  ms / ms of the first line, the median of each round's ratio
  search    ms of the search as a program of its own
  share     search / step, the median of each round's ratio
  padding   share of the places the step computes that hold no wordpiece
  cut       share of the wordpieces that had no place

Below the table: the same padding when the corpus is embedded anew as build_index
does it, for blocks of several lengths.
"""

import dataclasses
import pathlib
import sys
import tempfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from benchmarks import programs, start, synthetic
from benchmarks.step import NO_WORKDIR, batches_of
from experiments import command
from realm_jax.config import InputError
from realm_jax.retrieval.length_buckets import LengthBuckets
from realm_jax.retrieval.refresh import BlockEmbedder, Index
from realm_jax.train import pretrain, run, step
from realm_jax.train.build_index import slice_size
from realm_jax.train.pretrain import Pretraining
from realm_jax.types import BlockTokens

_LENGTHS = (64, 128, 288)  # of blocks that are embedded anew


class Size(NamedTuple):
  """N blocks, K candidates."""

  N: int
  K: int


class Sized(NamedTuple):
  """A step and its search at a size, ready to run."""

  step: programs.Steps
  search: object
  given: list[programs.Given]


def make(
  opened: Pretraining, size: Size, batches: list, tokens: BlockTokens
) -> Sized:
  """The programs of a size."""
  config = opened.config
  realm = run.unpadded(opened.realm, config)
  realm = dataclasses.replace(
    realm,
    retrieval=dataclasses.replace(realm.retrieval, num_blocks=size.N),
    num_candidates=size.K,
  )
  state, tx = run.start(pretrain.init_params(opened), config, opened.corpus)
  proj = realm.retrieval.embedder.config.retriever_proj_size
  zero = jnp.zeros((), jnp.int32)
  index = Index(
    jax.random.normal(jax.random.key(config.seed), (size.N, proj)), zero, zero
  )
  embedder = BlockEmbedder(realm.retrieval, slice_size())
  embed = jax.jit(realm.retrieval.embed_query)
  given = [
    programs.Given(
      state, index, tokens, b, None, embed(state.params, b.query), None
    )
    for b in batches
  ]
  train_step = step.make_pretrain_step(realm, tx, config.seed, embedder, 0)
  search = jax.jit(programs.parts(realm, tx, embedder, 0)["search"])
  return Sized(programs.Steps(train_step, given[0]), search, given)


def repeated(tokens: BlockTokens, count: int) -> BlockTokens:
  """The blocks again and again, up to `count`."""
  return jax.tree.map(
    lambda x: jnp.asarray(np.resize(x, (count, *x.shape[1:]))), tokens
  )


def report(
  config: ConfigDict, workdir: pathlib.Path, sizes: list[Size], rounds: int
) -> str:
  """The table.

  Raises:
    InputError: a mistake in config or data.
  """
  config.mesh.data, config.refresh.mode = 1, "never"
  opened = pretrain.open_pretraining(config, workdir)
  store = opened.corpus.store
  blocks = store.take(np.arange(len(store)), config.block_len)
  tokens = {size.N: repeated(blocks, size.N) for size in sizes}
  batches = batches_of(opened, rounds + 1)
  made = {s: make(opened, s, batches, tokens[s.N]) for s in sizes}
  rooms = {size: [] for size in sizes}
  running = {}
  for size, sized in made.items():

    def one_step(i, size=size, sized=sized):
      _, metrics = jax.block_until_ready(sized.step(sized.given[i]))
      rooms[size].append((metrics["padding"], metrics["cut_tokens"]))

    def one_search(i, sized=sized):
      jax.block_until_ready(sized.search(sized.given[i]))

    running |= {("step", size): one_step, ("search", size): one_search}
  seconds = start.interleaved(running, rounds)
  lines = [
    f"B={config.train.batch_size} Q={config.query_len} C={config.block_len}"
    f" L={config.joint_len} M={config.max_masks}, {len(store)} blocks in"
    f" {opened.corpus.data_dir.name}, {jax.devices()[0].device_kind}",
    "",
    start.row("", "step", "of first", "search", "share", "padding", "cut"),
  ]
  first = seconds["step", sizes[0]]
  for size in sizes:
    whole, search = seconds["step", size], seconds["search", size]
    padding, cut = np.mean(np.array(rooms[size], float), axis=0)
    cells = [
      f"{1e3 * np.median(whole):.0f}",
      f"{np.median(whole / first):.2f}",
      f"{1e3 * np.median(search):.1f}",
      f"{np.median(search / whole):.0%}",
      f"{padding:.0%}",
      f"{cut:.2%}",
    ]
    lines.append(start.row(f"N={size.N} K={size.K}", *cells))
  return "\n".join([*lines, "", embedding_padding(opened)])


def embedding_padding(opened: Pretraining) -> str:
  """Padding where the whole corpus is embedded, in words."""
  lens = opened.corpus.store.tokens.lens()
  found = []
  for length in _LENGTHS:
    buckets = LengthBuckets(opened.realm.retrieval, length, slice_size())
    kept = np.minimum(lens, length - 3)
    alike = dataclasses.replace(buckets, num_widths=1)
    found.append(
      f"{buckets.padding(kept):.1%} at C={length}"
      f" ({alike.padding(kept):.0%} at one width)"
    )
  return "padding where all blocks are embedded: " + ", ".join(found)


def sizes_of(f, k: int) -> list[Size]:
  """Each N of --rows with the config's K, then the first N with each other K.

  Raises:
    InputError: no such sizes.
  """
  try:
    rows, ks = ([int(x) for x in f[name].value] for name in ("rows", "k"))
  except ValueError as e:
    raise InputError(f"--rows, --k: {e}: wanted such as 10000,100000") from e
  if not rows or min(rows + ks, default=0) < 1 or max([*ks, k]) > min(rows):
    raise InputError(
      f"--rows={','.join(map(str, rows))} --k={','.join(map(str, ks))}: wanted"
      " numbers over 0, no K more than rows"
    )
  others = [Size(rows[0], other) for other in ks if other != k]
  return [*(Size(n, k) for n in rows), *others]


def main(config, workdir):
  f = flags.FLAGS
  sizes = sizes_of(f, config.num_candidates)
  with tempfile.TemporaryDirectory() as folder:
    if workdir == pathlib.Path(NO_WORKDIR) and not config.data.dir:
      synthetic.prepare_words(config, pathlib.Path(folder))
    print(report(config, workdir, sizes, f.rounds))


if __name__ == "__main__":
  flags.DEFINE_list("rows", "10000,100000,1000000", "N, several")
  flags.DEFINE_list("k", "4,8,16", "K, several")
  flags.DEFINE_integer("rounds", 5, "how often each runs", 1)
  if not any(word.lstrip("-").startswith("workdir") for word in sys.argv):
    sys.argv.append(f"--workdir={NO_WORKDIR}")
  command.run(main)
