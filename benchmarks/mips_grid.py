"""Search beside tuned FAISS over sizes, one line each (see benchmarks.mips).

  python -m benchmarks.mips_grid --rows=100000 --queries=1,64,512 --k=8,100,5000
  XLA_FLAGS=--xla_force_host_platform_device_count=8 \
    python -m benchmarks.mips_grid --shards=1,2,8

Both find for the same rows and queries, in interleaved rounds; FAISS has float32
rows, ours those of --dtype. --shards splits ours over so many devices. Columns:
medians in ms, FAISS / ours (median of each round's ratio), GFLOP/s of ours, which
share that is of the machine's best, and the share of FAISS's ids that ours found.
"""

import itertools

import jax
import numpy as np
from absl import flags

from benchmarks import mips, start
from realm_jax.config import InputError


def line(
  rows: np.ndarray,
  queries: np.ndarray,
  k: int,
  rounds: int,
  dtype: str = "float32",
  shards: int = 1,
) -> str:
  """The line of one size."""
  made = mips.searches(rows, queries, k, dtype, shards)
  ready = {name: made[name]() for name in ("ours", "FAISS tuned")}
  seconds = mips.measure(ready | {"peak": mips.peak()}, rounds)
  ours, faiss = seconds["ours"], seconds["FAISS tuned"]
  recall, _ = mips.judge(rows, queries, ready["ours"](), ready["FAISS tuned"]())
  cells = [
    *(f"{1e3 * np.median(s):.1f}" for s in (ours, faiss)),
    f"{np.median(faiss / ours):.2f}",
  ]
  sizes = "".join(f"{x:>8}" for x in (len(rows), shards, len(queries), k))
  reached = mips.rates(len(rows), *queries.shape, ours, seconds["peak"])
  return (
    f"{sizes}"
    + "".join(f"{x:>9}" for x in cells)
    + (f"   {reached:28}{recall:.4f}")
  )


def _numbers(name: str, words: list[str]) -> list[int]:
  if not words or not all(w.isdecimal() and int(w) for w in words):
    raise InputError(
      f"--{name}={','.join(words)}: wanted whole numbers over 0, as 1,64"
    )
  return list(map(int, words))


def main(f) -> None:
  if not mips.has_faiss():
    raise InputError(
      "FAISS is not there to compare with: pip install faiss-cpu"
    )
  queries, ks, shards = (
    _numbers(name, f[name].value) for name in ("queries", "k", "shards")
  )
  if max(ks) > f.rows:
    raise InputError(f"--k={max(ks)}: there are only --rows={f.rows}")
  there = jax.device_count()
  for count in shards:
    if count > there or f.rows % count:
      raise InputError(
        f"--shards={count}: wanted a divisor of --rows={f.rows} and at most"
        f" {there}, the devices that are there (XLA_FLAGS="
        f"--xla_force_host_platform_device_count={count} makes more)"
      )
  rows, every = mips.operands(f.rows, max(queries), f.dim)
  names = "".join(f"{x:>8}" for x in ("N", "shards", "B", "k"))
  names += "".join(f"{x:>9}" for x in ("ours", "FAISS", "ratio"))
  print(f"{names}   {'ours reaches':28}recall", flush=True)
  for b, k, count in itertools.product(queries, ks, shards):
    print(line(rows, every[:b], k, f.rounds, f.dtype, count), flush=True)


if __name__ == "__main__":
  flags.DEFINE_integer("rows", 100_000, "N, rows of the index", 1)
  flags.DEFINE_list("queries", "1,64,512", "B, several")
  flags.DEFINE_list("k", "8,100,5000", "how many to find, several")
  flags.DEFINE_list("shards", "1", "devices of ours, several")
  flags.DEFINE_enum("dtype", "float32", mips.DTYPES, "of our rows")
  flags.DEFINE_integer("dim", 128, "P, the size of a row", 1)
  flags.DEFINE_integer("rounds", 3, "how often each runs", 1)
  start.run(main)
