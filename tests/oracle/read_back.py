"""Lets the reference read a directory that realm_jax's save_pretrained wrote.

usage: python tests/oracle/read_back.py DIR [--against=DIR2]
Runs in the oracle's environment (README.md). DIR holds one directory a model;
inputs and wanted outputs come from the io.npz of DIR2 (default: DIR). Prints
what the reference says while loading, one row a comparison, and
'N passed, M failed'; exits 1 if any failed or none was made.
"""

import argparse
import pathlib
import sys

import numpy as np
import transformers
from safetensors.numpy import load_file
from stages import STAGES, Retriever, compute
from transformers import RealmConfig, RealmEmbedder

TOLERANCE = 5e-6  # of the largest value: same weights, other order of sums
ZERO = 1e-5  # of the largest gradient: below it, a gradient is rounding alone
# What no forward reads: the masked-LM head everywhere but in the encoder.
UNREAD = "cls.predictions."
WRITTEN_BY = {"transformers_version", "_name_or_path"}


def main():
  """Reads back every model that DIR holds."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("dir", type=pathlib.Path)
  parser.add_argument("--against", type=pathlib.Path)
  args = parser.parse_args()
  rows = []
  for name in STAGES:
    if (args.dir / name).is_dir():
      against = (args.against or args.dir) / name
      rows += [
        (name, *row) for row in read_back(name, args.dir / name, against)
      ]
  for name, what, ok, figure in rows:
    print(f"{'ok  ' if ok else 'FAIL'} {name:16} {what:72} {figure}")
  failed = sum(not ok for _, _, ok, _ in rows)
  print(f"{len(rows) - failed} passed, {failed} failed")
  sys.exit(not rows or failed > 0)


def read_back(name, path, against):
  """Yields (what, whether it holds, figure) of one model."""
  io = dict(np.load(against / "io.npz"))
  model, info = load(name, path)
  yield from _loaded(name, info)
  yield _same_config(path, against)
  yield from _same_weights(name, path, against)
  grads = [np.abs(v).max() for k, v in io.items() if k.startswith("grad/")]
  zero = ZERO * max(grads, default=0)
  for key, value in compute(name, model, io).items():
    is_zero = key.startswith("grad/") and np.abs(value).max() < zero
    if key in io and not is_zero:
      yield (key, *_close(value, io[key]))


def load(name, path):
  """The reference's model of a directory, and what it says of the names."""
  model_class, _ = STAGES[name]
  more = {}
  if name == "openqa":
    more["retriever"] = Retriever.from_pretrained(path)
  if name == "scorer_own_query":
    config = RealmConfig.from_pretrained(path)
    more["query_embedder"] = RealmEmbedder(config)
  return model_class.from_pretrained(path, output_loading_info=True, **more)


def _loaded(name, info):
  for kind, keys in info.items():
    print(f"{name}: {kind}: {len(keys)} {list(keys)[:4]}")
    read = [k for k in keys if name == "encoder" or UNREAD not in str(k)]
    yield f"{kind} that a forward reads", not read, len(read)


def _same_config(path, against):
  got, want = (
    RealmConfig.from_pretrained(p).to_dict() for p in (path, against)
  )
  names = (got.keys() | want.keys()) - WRITTEN_BY
  pairs = {k: (got.get(k), want.get(k)) for k in sorted(names)}
  differ = {k: (a, b) for k, (a, b) in pairs.items() if a != b}
  return "config.json", not differ, differ


def _same_weights(name, path, against):
  got, want = _tensors(path), _tensors(against)
  missing = [k for k in want if k not in got]
  read = [k for k in missing if name == "encoder" or UNREAD not in k]
  yield "tensors missing that a forward reads", not read, read
  yield "tensors too many", got.keys() <= want.keys(), got.keys() - want.keys()
  differ = [k for k in got if k in want and not np.array_equal(got[k], want[k])]
  yield "tensors differing", not differ, differ


def _tensors(path):
  """Of one file of weights, or of its shards."""
  files = sorted(path.glob("model*.safetensors"))
  return {k: v for file in files for k, v in load_file(file).items()}


def _close(got, want):
  """Whether two arrays agree, and by how much they differ."""
  if got.shape != want.shape or got.dtype != want.dtype:
    return False, f"{got.dtype}{got.shape}, wanted {want.dtype}{want.shape}"
  if got.dtype.kind != "f":
    return bool(np.array_equal(got, want)), f"{np.sum(got != want)} differ"
  scale = max(1e-6, np.abs(want).max(initial=0))
  error = np.abs(got - want).max(initial=0) / scale
  return bool(error <= TOLERANCE), f"rel {error:.1e}"


if __name__ == "__main__":
  transformers.logging.set_verbosity_error()
  main()
