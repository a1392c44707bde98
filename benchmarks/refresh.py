"""What it costs a step that the index is refreshed meanwhile.

  python -m benchmarks.refresh [--config.KEY=VALUE ...]
  python -m benchmarks.refresh --worker [--config.KEY=VALUE ...]

On made-up words of the demo's sizes (or --config=, and --workdir= of prepared
data); one device. All programs run in turns, so that a busy machine slows them
all alike.

The first: a step that embeds nothing, beside steps that embed each of --shares
(config.refresh.share), and one with the slices of the config itself. Columns:
blocks a step embeds, steps to a new version, the share by counted FLOPs, and
the measured one: the median over the rounds of (its seconds / those of the step
that embeds nothing) - 1. What comes at the swap, between two steps, is left out
(`refresh_share` of metrics.jsonl).

The second: this process keeps to one core and trains, without refresh, while
another one embeds the corpus on a second core as a worker does, and is stopped
(SIGSTOP) in every other round.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from benchmarks import synthetic
from benchmarks.step import batches_of
from experiments import command
from realm_jax import sharding
from realm_jax.plan import cost
from realm_jax.train import build_index, indexing, pretrain, run, share, step
from realm_jax.train.corpus import data_dir

_SHARES = flags.DEFINE_list("shares", ["0.05", "0.1", "0.2"], "to measure")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "of each program")
_STEPS = flags.DEFINE_integer("steps", 3, "of a program in a round")
_WORKER = flags.DEFINE_bool("worker", False, "measure beside a worker")
_NO_WORKDIR = "(made-up words)"
_CHUNK = 256  # blocks that the worker embeds between two signs of life


@dataclasses.dataclass(frozen=True)
class Way:
  """A training step that goes on from its own state.

  Attributes:
    once: a step on a batch.
    batches: for a round.
    blocks: that a step embeds.
    every_steps: to a new version.
    cost: counted, of what it embeds; of a step that embeds nothing, of all.
  """

  once: Callable
  batches: list
  blocks: int
  every_steps: int
  cost: cost.Cost

  def seconds(self) -> float:
    """Of a round of steps."""
    began = time.perf_counter()
    for batch in self.batches:
      jax.block_until_ready(self.once(batch))
    return time.perf_counter() - began


def open_way(config: ConfigDict, workdir: pathlib.Path, **refresh) -> Way:
  """The step of a config, with other fields of its refresh section."""
  config = config.copy_and_resolve_references()
  config.refresh.update(refresh)
  opened = pretrain.open_pretraining(config, workdir)
  config, corpus, tokens = opened.config, opened.corpus, opened.tokens
  state, tx = run.start(pretrain.init_params(opened), config, corpus)
  batches = batches_of(opened, _STEPS.value)
  refresher = indexing.make_refresher(
    config, workdir, corpus, opened.realm.retrieval, tokens, batches[0].query
  )
  slices, embedder = refresher.slices_per_step, refresher.embedder
  index = refresher.shell(state.params).replace(
    block_emb=embedder.embed_all(state.params["embedder"], tokens)
  )
  train_step = step.make_pretrain_step(
    run.unpadded(opened.realm, config), tx, config.seed, embedder, slices
  )
  count = functools.partial(cost.count, cpu=jax.default_backend() == "cpu")
  if slices:
    args = state.params["embedder"], tokens, index.block_emb, 0
    counted = count(embedder.embed_slice, *args).times(slices)
  else:
    counted = count(train_step, state, index, batches[0], tokens)
  jitted, carried = step.JitStep(train_step, tokens), [state, index]

  def once(batch):
    *carried[:], scalars = jitted(*carried, batch)
    return scalars

  blocks = slices * config.refresh.slice_size
  return Way(once, batches, blocks, config.refresh.every_steps, counted)


def measure_shares(config: ConfigDict, workdir: pathlib.Path) -> Iterator[str]:
  """The lines of the first table."""
  ways = {"none": open_way(config, workdir, mode="never")}
  for wanted in _SHARES.value:
    ways[f"share={wanted}"] = open_way(config, workdir, share=float(wanted))
  ways["as configured"] = open_way(config, workdir)
  seconds = {name: [] for name in ways}
  for i in range(_ROUNDS.value + 1):  # the first warms up
    for name in np.roll(list(ways), i):
      seconds[name].append(ways[name].seconds())
  seconds = {name: np.array(of[1:]) for name, of in seconds.items()}
  yield (
    "| refresh | blocks a step | steps a version | FLOPs | bytes | measured |"
    " ms a step |"
  )
  yield "|---|---|---|---|---|---|---|"
  for name, way in ways.items():
    flops, moved = share.shares(way.cost, ways["none"].cost)
    counted = f"{flops:.1%} | {moved:.1%}" if way.blocks else "- | -"
    more = np.median(seconds[name] / seconds["none"]) - 1
    ms = 1e3 * np.median(seconds[name]) / _STEPS.value
    every = way.every_steps if way.blocks else "-"
    yield (
      f"| {name} | {way.blocks} | {every} | {counted} | {more:.1%} | {ms:.0f} |"
    )


def measure_worker(config: ConfigDict, workdir: pathlib.Path) -> Iterator[str]:
  """The lines of the second table."""
  mine, others = sorted(os.sched_getaffinity(0))[:2]
  os.sched_setaffinity(0, {mine})  # before JAX starts its threads
  way = open_way(config, workdir, mode="never")
  with _worker(config, workdir, others) as (worker, embedded):
    seconds, done = {"no refresh": [], "a worker beside": []}, 0
    for i in range(2 * _ROUNDS.value + 2):
      name = list(seconds)[i % 2]
      worker.send_signal(signal.SIGCONT if i % 2 else signal.SIGSTOP)
      before = embedded()
      seconds[name].append(way.seconds())
      done += (embedded() - before) * (i > 1)
    worker.send_signal(signal.SIGCONT)
  of = {name: np.array(values[1:]) for name, values in seconds.items()}
  ratio = np.median(of["no refresh"] / of["a worker beside"])
  yield "| the trainer on its core | steps/s | of no refresh |"
  yield "|---|---|---|"
  for name, part in zip(of, (1.0, ratio), strict=True):
    yield f"| {name} | {_STEPS.value / np.median(of[name]):.2f} | {part:.1%} |"
  rate = done / of["a worker beside"].sum()
  yield f"\nthe worker embedded {rate:.0f} blocks/s on the other core meanwhile"


@contextlib.contextmanager
def _worker(config, workdir, core):
  """A process that embeds all the time; and how many blocks it has embedded."""
  with tempfile.TemporaryDirectory() as folder:
    source, out = pathlib.Path(folder) / "run", pathlib.Path(folder) / "out"
    config = config.copy_and_resolve_references()
    config.data.dir = str(data_dir(config, workdir))
    synthetic.make_run(config, source, steps=[1])
    code = (
      f"from benchmarks import refresh; refresh.embed({str(source)!r}, {core})"
    )
    with open(out, "wb") as file:
      worker = subprocess.Popen([sys.executable, "-c", code], stdout=file)
    try:
      while not out.stat().st_size:
        if worker.poll() is not None:
          raise RuntimeError(f"the worker ended with {worker.returncode}")
        time.sleep(0.1)
      yield worker, lambda: _CHUNK * out.stat().st_size
    finally:
      worker.kill()
      worker.wait()


def embed(workdir: str, core: int) -> None:
  """What the worker's process does: a byte on stdout for each chunk."""
  os.sched_setaffinity(0, {core})
  source = build_index.open_source(workdir)
  params = sharding.replicate(source.params, source.mesh)
  while True:
    for first in range(0, len(source.store), _CHUNK):
      ids = np.arange(first, first + _CHUNK) % len(source.store)
      tokens = source.store.take(ids, source.buckets.block_len)
      source.buckets.embed(params, tokens)
      os.write(1, b".")


def main(config, workdir):
  config.mesh.data = 1
  measure = measure_worker if _WORKER.value else measure_shares
  with tempfile.TemporaryDirectory() as folder:
    if workdir == pathlib.Path(_NO_WORKDIR) and not config.data.dir:
      synthetic.prepare_words(config, pathlib.Path(folder))
    else:
      config.data.dir = str(data_dir(config, workdir))
    # no run's workdir, which would have its slices settled already
    for line in measure(config, pathlib.Path(folder)):
      print(line, flush=True)


if __name__ == "__main__":
  for word, default in (
    ("--config=", "configs/pretrain.py:demo"),
    ("--workdir=", _NO_WORKDIR),
  ):
    if not any(given.startswith(word) for given in sys.argv):
      sys.argv.append(word + default)
  command.run(main)
