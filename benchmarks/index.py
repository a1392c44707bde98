"""What it costs to build, write, read, verify and update an index.

  python -m benchmarks.index [--blocks=10000] [--layers=4] [--hidden=256] [--measure=update]
  python -m benchmarks.index --kills=50

The corpus is made up, one block an article of 12 to 127 wordpieces, evenly
spread over five lengths of article; --block_len is what all are padded to
without length buckets. Programs are compiled before anything is timed.

build: blocks/s of the embedder alone, with length buckets and without, the same
blocks in interleaved rounds; the ratio is the median of the rounds' ratios.
disk: an index of --rows rows in the page cache, published, verified, read
(which verifies it too).
update: --articles new articles added, beside a rebuild of the whole: each from
the run's directory to the published version, with reading the checkpoint and
all that is fsynced; the median of three updates.

--kills kills that many builders at random moments instead (benchmarks/kills.py).
"""

import json
import pathlib
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import flags

from benchmarks import start, synthetic
from realm_jax import sharding
from realm_jax.config import InputError
from realm_jax.retrieval import defaults, manifest
from realm_jax.retrieval import index as versions
from realm_jax.retrieval.length_buckets import LengthBuckets
from realm_jax.train import build_index, update_corpus

_SAMPLE = 512  # blocks of a round
_P = 128  # of the index on the disk
_MEASURES = ["build", "disk", "update"]


def measure_build(workdir: pathlib.Path, rounds: int) -> str:
  """With length buckets and without: blocks/s, ratio, padding."""
  source = build_index.open_source(workdir)
  plain = LengthBuckets(
    source.buckets.retrieval,
    source.buckets.block_len,
    source.buckets.batch_size,
    num_widths=1,
  )
  params = sharding.replicate(source.params, source.mesh)
  ids = np.linspace(0, len(source.store) - 1, min(_SAMPLE, len(source.store)))
  tokens = source.store.take(ids.astype(int), plain.block_len)
  ways = {"buckets": source.buckets, "one length": plain}
  seconds = {name: [] for name in ways}
  for i in range(rounds + 1):  # the first compiles
    for name in sorted(ways, reverse=bool(i % 2)):
      spent = _seconds(lambda way=ways[name]: way.embed(params, tokens))
      seconds[name].append(spent)
  seconds = {name: np.array(s[1:]) for name, s in seconds.items()}
  lines = [
    f"build: {name:10} {len(ids) / np.median(seconds[name]):8.0f} blocks/s,"
    f" {way.padding(tokens.lens):.0%} padding, widths"
    f" {', '.join(map(str, way.widths))}"
    for name, way in ways.items()
  ]
  ratio = np.median(seconds["one length"] / seconds["buckets"])
  return "\n".join([*lines, f"build: buckets are {ratio:.2f} times as fast"])


def measure_disk(folder: pathlib.Path, num_rows: int, rounds: int) -> str:
  """Publish, verify and read an index: MB/s."""
  emb = np.random.default_rng(0).standard_normal((num_rows, _P), np.float32)
  made = dict.fromkeys(manifest.KEYS, 0)
  path = versions.version_path(folder, 0)
  ways = {
    "publish": lambda: versions.publish_version(folder, 0, emb, made),
    "verify": lambda: manifest.verify(path),
    "read": lambda: versions.read_path(path, {}),
  }
  seconds = {name: [] for name in ways}
  for _ in range(rounds):
    for name, way in ways.items():
      seconds[name].append(_seconds(way))
  size = emb.nbytes / 1e6
  rates = {name: size / np.median(s) for name, s in seconds.items()}
  said = ", ".join(f"{name} {rate:.0f} MB/s" for name, rate in rates.items())
  return f"disk: {num_rows} x {_P} float32, {size:.0f} MB: {said}"


def measure_update(
  workdir: pathlib.Path, num_articles: int, updates: int = 3
) -> str:
  """Articles added, beside a rebuild."""
  _compile(build_index.open_source(workdir))
  rebuild = _seconds(lambda: build_index.build_index(workdir))
  seconds = []
  for i in range(updates):
    path = workdir / f"new{i}.jsonl"
    path.write_text("".join(_articles(workdir, i, num_articles)))
    seconds.append(
      _seconds(lambda p=path: update_corpus.update_corpus(workdir, add=str(p)))
    )
  update = float(np.median(seconds))
  made = versions.read_manifest(workdir, updates)
  return (
    f"update: {num_articles} articles added in {update:.3f} s, a rebuild of"
    f" {made['shape'][0] - updates * num_articles} blocks takes {rebuild:.2f} s:"
    f" {update / rebuild:.2%} of it\n"
    f"update: rows written in {made['seconds']:.3f} s, the rest is reading the"
    " checkpoint, the block store and publishing"
  )


def _compile(source: build_index.Source) -> None:
  """A batch of each width."""
  params = sharding.replicate(source.params, source.mesh)
  lens = np.asarray(source.store.tokens.lens())
  for width in source.buckets.widths:
    ids = np.flatnonzero(lens + 3 <= width)[-1:]
    source.buckets.embed(
      params, source.store.take(ids, source.buckets.block_len)
    )


def _articles(workdir, number, count):
  """Lines of new articles in the words of the first ones."""
  store = build_index.open_source(workdir).store
  for i in range(count):
    block = (number * count + i) % len(store)
    text = store.text(block)
    article = {"id": f"new-{number}-{i}", "title": store.title(block)}
    yield json.dumps(article | {"text": text}) + "\n"


def _seconds(work: Callable) -> float:
  began = time.perf_counter()
  work()
  return time.perf_counter() - began


def main(f) -> None:
  """Measures all, or kills."""
  if unknown := [x for x in f.measure if x not in _MEASURES]:
    raise InputError(
      f"--measure={unknown[0]}: wanted some of {', '.join(_MEASURES)}"
    )
  with tempfile.TemporaryDirectory(prefix="benchmark") as name:
    folder = pathlib.Path(name)
    if f.kills:
      from benchmarks import kills

      print(kills.kill_builders(folder, f.kills))
      return
    config = synthetic.retriever_config(
      f.blocks,
      f.layers,
      f.hidden,
      f.block_len,
    )
    synthetic.prepare_words(config, folder)
    workdir = folder / "run"
    synthetic.make_run(config, workdir, steps=[1])
    print(
      f"{f.blocks} blocks, C={f.block_len}, {f.layers} layers of"
      f" {f.hidden}, {jax.devices()[0].device_kind} x"
      f" {build_index.open_source(workdir).mesh.size}, chunks of"
      f" {defaults.CHUNK_BLOCKS}",
      flush=True,
    )
    for what in f.measure:
      print(
        {
          "build": lambda: measure_build(workdir, f.rounds),
          "disk": lambda: measure_disk(folder / "disk", f.rows, f.rounds),
          "update": lambda: measure_update(workdir, f.articles),
        }[what](),
        flush=True,
      )


if __name__ == "__main__":
  flags.DEFINE_integer("blocks", 10_000, "in the index", 1)
  flags.DEFINE_integer("articles", 100, "added by an update", 1)
  flags.DEFINE_integer("rows", 500_000, "of the index on the disk", 1)
  flags.DEFINE_integer("layers", 4, "of the embedder", 1)
  flags.DEFINE_integer("hidden", 256, "of the embedder", 1)
  flags.DEFINE_integer("block_len", 128, "wordpieces", 1)
  flags.DEFINE_integer("rounds", 3, "of the builds, and of the disk", 1)
  flags.DEFINE_list("measure", _MEASURES, "what")
  flags.DEFINE_integer("kills", 0, "kill so many builders instead")
  start.run(main)
