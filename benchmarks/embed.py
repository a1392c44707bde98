"""How fast blocks are embedded for an index, alone or beside a peer.

  python -m benchmarks.embed --workdir=DIR
  python -m benchmarks.embed --peer=hf --peer_python=PEER/bin/python

DIR is the workdir of a run whose data is prepared (its blocks, one after the
other); without one, made-up wordpieces of the leads' lengths are. Ours is what
build_index does: LengthBuckets, slice_size() blocks at a time. The peer is Hugging
Face's RealmEmbedder with the same weights (benchmarks/peer.py says what to
install), the same blocks and as many at a time, padded to the longest of them:
in the order they come, and, as ours, sorted by length. The embeddings are
compared first.

Columns of the table:
  ms        median over interleaved rounds of --blocks blocks, other ones each
  of ours   ms / ms of ours, the median of each round's ratio
  blocks/s  --blocks / ms
  padding   share of the computed places that hold no wordpiece
  GFLOP/s   of matrix products, counted (realm_jax/plan/cost.py)
  of peak   of the best product of two square float32 matrices in these rounds
"""

import collections
import functools
import pathlib
import tempfile
from collections.abc import Iterator

import jax
import numpy as np
from absl import flags

from benchmarks import mips, peer, sized, start, synthetic
from benchmarks.step_peer import SCRIPTS
from realm_jax.config import InputError, RealmConfig
from realm_jax.data.blocks import BlockStore
from realm_jax.data.packing import NUM_SPECIALS
from realm_jax.models import convert
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.plan import cost
from realm_jax.pretrained import Pretrained, save_pretrained
from realm_jax.retrieval import candidates
from realm_jax.retrieval.length_buckets import LengthBuckets
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.train.build_index import slice_size
from realm_jax.types import BlockTokens

_SETS = 4  # of blocks, in turn
_ORDERS = {
  "as they come": "come",
  "by length": "sorted",
}  # program -> its files
_AGREE = 1e-4


def make_buckets(
  config: RealmConfig, block_len: int, specials
) -> LengthBuckets:
  """What build_index embeds with, on one device."""
  retrieval = Retrieval(RealmEmbedder(config), specials, num_blocks=1)
  return LengthBuckets(retrieval, block_len, slice_size())


def flops(buckets: LengthBuckets, params: dict, lens: np.ndarray) -> int:
  """Of the products that embedding blocks of lens [n] takes, padding too."""

  def of_batch(width):
    shape, rows = jax.ShapeDtypeStruct, buckets.batch_size
    words = shape((rows, width - NUM_SPECIALS), np.int32)
    length = shape((rows,), np.int32)
    batch = BlockTokens(words, length, length)
    embed = buckets.retrieval.embed_blocks
    return cost.count(embed, {"embedder": params}, batch).flops

  widths = collections.Counter(buckets.batch_widths(lens))
  return sum(n * of_batch(width) for width, n in widths.items())


def peer_batches(
  buckets: LengthBuckets, blocks: BlockTokens, by_length: bool
) -> Iterator[dict[str, np.ndarray]]:
  """The peer's batches, each as long as its longest block."""
  order = np.arange(len(blocks.lens))
  if by_length:
    order = np.argsort(-blocks.lens, kind="stable")
  for first in range(0, len(order), buckets.batch_size):
    part = order[first : first + buckets.batch_size]
    chosen = jax.tree.map(lambda x, part=part: x[part], blocks)
    inputs = candidates.block_inputs(chosen, buckets.retrieval.specials)
    longest = int(blocks.lens[part].max()) + NUM_SPECIALS
    yield {
      name: np.asarray(getattr(inputs, name))[:, :longest]
      for name in ("input_ids", "attention_mask", "token_type_ids")
    }


def hand_over(
  folder: pathlib.Path,
  buckets: LengthBuckets,
  params: dict,
  sets: list[BlockTokens],
) -> dict[str, float]:
  """Writes weights and batches for the peer; its program -> padding."""
  module = buckets.retrieval.embedder
  whole = Pretrained(module.config, module, params)
  save_pretrained(folder / "RealmEmbedder", whole)
  padding = {}
  for name, file in _ORDERS.items():
    places = words = 0
    for i, blocks in enumerate(sets):
      arrays = {}
      batches = peer_batches(buckets, blocks, name == "by length")
      for n, batch in enumerate(batches):
        arrays |= {f"{n:04}/{k}": v for k, v in batch.items()}
        places += batch["attention_mask"].size
        words += batch["attention_mask"].sum()
      np.savez(folder / f"{file}_{i}.npz", **arrays)
    padding[name] = 1 - words / places
  return padding


def check_same(ours: np.ndarray, theirs: np.ndarray) -> float:
  """How far the embeddings [n, P] are apart, at the most.

  Raises:
    InputError: they are not of the same weights and blocks.
  """
  apart = float(np.abs(ours - theirs).max())
  if apart > _AGREE:
    raise InputError(
      f"--peer: embeddings differ by {apart:.1e}, at most {_AGREE} is rounding:"
      " not the same work"
    )
  return apart


def report(
  buckets: LengthBuckets,
  sets: list[BlockTokens],
  rounds: int,
  python: str = "",
  threads: int = 1,
) -> str:
  """The table; beside the peer where its Python is given.

  Raises:
    InputError: no such peer, or it computes something else.
  """
  embedder, multiply = buckets.retrieval.embedder, mips.peak()
  params = jax.jit(lambda key: convert.fresh_params(embedder, key))(
    jax.random.key(0)
  )
  programs = {
    "ours": lambda i: buckets.embed(params, sets[i % len(sets)]),
    "peak": lambda i: multiply(),
  }
  padding = {"ours": float(np.mean([buckets.padding(s.lens) for s in sets]))}
  for blocks in sets:  # compiles every width
    buckets.embed(params, blocks)
  about = []
  if not python:
    seconds = start.interleaved(programs, rounds)
  else:
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      padding |= hand_over(folder, buckets, params, sets)
      with peer.started(SCRIPTS["hf"], python, folder, threads) as hf:
        theirs = hf.run("as they come", 0, save=folder / "answer.npz")
        apart = check_same(buckets.embed(params, sets[0]), theirs["emb"])
        about = [f"hf: {hf.about}; embeddings agree to {apart:.0e}"]
        for order in _ORDERS:
          programs[order] = functools.partial(_timed, hf, order, len(sets))
        seconds = start.interleaved(programs, rounds)
  counted = np.mean([flops(buckets, params, s.lens) for s in sets])
  size = f"N={len(sets[0].lens)} C={buckets.block_len}"
  words = np.mean([s.lens for s in sets]) + NUM_SPECIALS
  c = embedder.config
  head = (
    f"{size}, {c.num_hidden_layers} layers of {c.hidden_size}, {threads}"
    f" threads, {jax.devices()[0].device_kind}; {words:.0f} wordpieces a block"
  )
  table = _table(seconds, padding, counted, len(sets[0].lens))
  return "\n".join([head, *about, "", *table])


def _timed(hf, order, num_sets, i):
  return hf.run(order, i % num_sets)


def _table(seconds, padding, counted, num_blocks) -> Iterator[str]:
  peak = mips.PEAK_FLOPS / seconds.pop("peak").min()
  yield start.row(
    "", "ms", "of ours", "blocks/s", "padding", "GFLOP/s", "of peak"
  )
  for name, s in seconds.items():
    median = np.median(s)
    cells = [
      f"{1e3 * median:.0f}",
      f"{np.median(s / seconds['ours']):.2f}",
      f"{num_blocks / median:.0f}",
      f"{padding[name]:.0%}",
    ]
    if name == "ours":
      rate = counted / median
      cells += [f"{rate / 1e9:.0f}", f"{rate / peak:.0%}"]
    yield start.row(name if name == "ours" else f"hf, {name}", *cells)
  yield ""
  yield f"peak: {peak / 1e9:.0f} GFLOP/s"


def stored(workdir: str, count: int, block_len: int) -> list[BlockTokens]:
  """Sets of `count` blocks of prepared data, evenly spaced in it.

  Raises:
    InputError: no data, or too few blocks.
  """
  path = pathlib.Path(workdir) / "data" / "blocks"
  if not (path / "meta.json").exists():
    raise InputError(
      f"--workdir={workdir}: no {path}: run experiments.prepare_data, or leave"
      " the flag out for made-up blocks"
    )
  store = BlockStore(path)
  if len(store) < count * _SETS:
    raise InputError(
      f"--blocks={count}: {path} has {len(store)}, wanted {_SETS} times as many"
    )
  firsts = np.linspace(0, len(store) - count, _SETS).astype(int)
  return [store.take(np.arange(f, f + count), block_len) for f in firsts]


def main(f) -> None:
  start.use_threads(f.threads)
  sizes = sized.Sizes(C=f.block_len, layers=f.layers, hidden=f.hidden)
  if f.hidden % sizes.heads:
    raise InputError(f"--hidden={f.hidden}: wanted a multiple of {sizes.heads}")
  if f.workdir:
    sets = stored(f.workdir, f.blocks, sizes.C)
  else:
    rng = np.random.default_rng(0)
    sets = [
      synthetic.block_tokens(rng, (f.blocks,), sizes.C, sizes.V, sizes.block)
      for _ in range(_SETS)
    ]
  buckets = make_buckets(sizes.config(), sizes.C, synthetic.SPECIALS)
  python = f.peer_python if f.peer else ""
  print(report(buckets, sets, f.rounds, python, f.threads))


if __name__ == "__main__":
  peer.define_flags(SCRIPTS)
  flags.DEFINE_string("workdir", "", "of prepared data; '': made-up words")
  flags.DEFINE_integer("blocks", 256, "embedded in a round", 1)
  flags.DEFINE_integer("block_len", 128, "C, wordpieces of a block", 32)
  flags.DEFINE_integer("layers", 6, "of the embedder", 1)
  flags.DEFINE_integer("hidden", 384, "D of the embedder", 1)
  flags.DEFINE_integer("rounds", 5, "how often each runs", 1)
  start.run(main)
