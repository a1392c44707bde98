"""Exact search beside tuned FAISS over sizes, one line each (see benchmarks.mips).

  python -m benchmarks.mips_grid --rows=100000 --queries=1,64,512 --k=8,100,5000

Both find for the same rows and queries, in interleaved rounds. Columns: medians
in ms, FAISS / ours (median of each round's ratio), GFLOP/s of ours, which share
that is of the machine's best, and whether the ids are those of FAISS.
"""

import numpy as np
from absl import app, flags

from benchmarks import mips
from realm_jax.config import InputError


def line(rows: np.ndarray, queries: np.ndarray, k: int, rounds: int) -> str:
  """The line of one size."""
  made = mips.searches(rows, queries, k)
  ready = {name: made[name]() for name in ("ours", "FAISS tuned")}
  seconds = mips.measure(ready | {"peak": mips.peak()}, rounds)
  ours, faiss = seconds["ours"], seconds["FAISS tuned"]
  recall, _ = mips.judge(rows, queries, ready["ours"](), ready["FAISS tuned"]())
  cells = [
    *(f"{1e3 * np.median(s):.1f}" for s in (ours, faiss)),
    f"{np.median(faiss / ours):.2f}",
  ]
  sizes = "".join(f"{x:>8}" for x in (len(rows), len(queries), k))
  reached = mips.rates(len(rows), *queries.shape, ours, seconds["peak"])
  return (
    f"{sizes}"
    + "".join(f"{x:>9}" for x in cells)
    + (f"   {reached:28}{recall:.4f}")
  )


def main(argv):
  del argv
  f = flags.FLAGS
  if not mips.has_faiss():
    raise InputError(
      "FAISS is not there to compare with: pip install faiss-cpu"
    )
  queries, ks = ([int(x) for x in y] for y in (f.queries, f.k))
  rows, every = mips.operands(f.rows, max(queries), f.dim)
  names = "".join(f"{x:>8}" for x in ("N", "B", "k"))
  names += "".join(f"{x:>9}" for x in ("ours", "FAISS", "ratio"))
  print(f"{names}   {'ours reaches':28}recall", flush=True)
  for b in queries:
    for k in ks:
      print(line(rows, every[:b], k, f.rounds), flush=True)


if __name__ == "__main__":
  flags.DEFINE_integer("rows", 100_000, "N, rows of the index", 1)
  flags.DEFINE_list("queries", "1,64,512", "B, several")
  flags.DEFINE_list("k", "8,100,5000", "how many to find, several")
  flags.DEFINE_integer("dim", 128, "P, the size of a row", 1)
  flags.DEFINE_integer("rounds", 3, "how often each runs", 1)
  app.run(main)
