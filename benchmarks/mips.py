"""What exact search costs beside NumPy, FAISS and the bare matrix product.

  python -m benchmarks.mips --rows=500000 --queries=64 --k=10
  python -m benchmarks.mips --rows=5000000 --queries=512 --k=10 --memory

Rows and queries are made up (normal, seed 0). --dtype=bfloat16 or int8 searches
such rows, ranks a list of 4 k again with the float32 rows, and its recall is
measured. FAISS is optional (pip install faiss-cpu); without it its rows are left
out, and a line says so.

Columns of the table:
  ms        median over interleaved rounds: each runs every search once, so that
            a busy machine slows them all alike
  of ours   ms / ms of ours, the median of each round's ratio
  recall    share of the ids of NumPy's list that were found
  exact     whether the products of what was found, in float64, are those of
            NumPy's list up to the rounding of float32

"FAISS tuned" is IndexFlatIP with distance_compute_blas_threshold=1,
distance_compute_blas_database_bs=65536, distance_compute_min_k_reservoir=1 and
all threads. "product" is jnp.dot [B, P] x [P, N], written to memory, and finds
nothing. Below the table: the GFLOP/s of ours beside the machine's best, the
fastest product of two 2048 x 2048 float32 matrices in these rounds. With --memory each search runs once in a process of its own instead,
and the table is of how far its memory rose above its operands (Linux).
"""

import pathlib
import subprocess
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import start
from benchmarks.resident import risen
from realm_jax import sharding
from realm_jax.config import InputError
from realm_jax.retrieval import mips, vectors

_LIST = 4  # times k: the list that coarser rows find and float32 rows rank
_SIDE = 2048  # of the matrices that show the peak
PEAK_FLOPS = 2 * _SIDE**3  # of their product
DTYPES = ("float32", "bfloat16", "int8")
_NO_FAISS = "FAISS is left out: pip install faiss-cpu"
_TUNED = {
  "distance_compute_blas_threshold": 1,
  "distance_compute_blas_database_bs": 65536,
  "distance_compute_min_k_reservoir": 1,
}
Search = Callable[[], np.ndarray | None]


def operands(rows: int, queries: int, dim: int) -> tuple[np.ndarray, ...]:
  """Rows [N, P] and queries [B, P] in float32."""
  rng = np.random.default_rng(0)
  shapes = ((rows, dim), (queries, dim))
  return tuple(rng.standard_normal(s, np.float32) for s in shapes)


def searches(
  rows: np.ndarray,
  queries: np.ndarray,
  k: int,
  dtype: str = "float32",
  shards: int = 1,
) -> dict[str, Callable[[], Search]]:
  """Name -> what makes it ready; ready, it returns ids [B, k] or None.

  Args:
    rows: [N, P].
    queries: [B, P].
    k: how many.
    dtype: of the rows that are searched.
    shards: devices that they are split over.
  """
  made = {
    "ours": lambda: _ours(rows, queries, k, dtype, shards),
    "NumPy": lambda: lambda: _numpy(rows, queries, k),
    "lax.top_k": lambda: _jitted(
      lambda x, q: jax.lax.top_k(jnp.dot(q, x.T), k)[1], rows, queries
    ),
    "product": lambda: _jitted(lambda x, q: jnp.dot(q, x.T), rows, queries),
  }
  if has_faiss():
    made["FAISS"] = lambda: _faiss(rows, queries, k, {})
    made["FAISS tuned"] = lambda: _faiss(rows, queries, k, _TUNED)
  return made


def has_faiss() -> bool:
  """Whether FAISS is installed."""
  try:
    import faiss  # noqa: F401
  except ImportError:
    return False
  return True


def _jitted(f, *args):
  args = jax.tree.map(jnp.asarray, args)
  compiled = jax.jit(f).lower(*args).compile()
  return lambda: jax.block_until_ready(compiled(*args))


def peak() -> Search:
  """The product of two square matrices, as fast as this machine multiplies."""
  square = np.random.default_rng(0).standard_normal((_SIDE, _SIDE), np.float32)
  return _jitted(jnp.dot, square, square)


def rates(n: int, b: int, p: int, ours: np.ndarray, peak: np.ndarray) -> str:
  """What ours reaches of the peak, from the seconds of both."""
  rate, best = 2 * n * b * p / np.median(ours), PEAK_FLOPS / peak.min()
  return f"{rate / 1e9:.0f} of {best / 1e9:.0f} GFLOP/s, {rate / best:.0%}"


def _ours(rows, queries, k, dtype, shards):
  mesh = sharding.make_mesh(shards)
  rows = sharding.shard_rows(rows, mesh)
  queries = sharding.replicate(queries, mesh)
  if dtype == "float32":
    return _jitted(
      lambda x, q: mips.top_k(x, q, k, mesh=mesh)[1], rows, queries
    )
  coarse = (
    vectors.quantize(rows) if dtype == "int8" else rows.astype(jnp.bfloat16)
  )
  num = min(_LIST * k, len(rows))

  def search(rows, coarse, queries):
    ids = mips.top_k(coarse, queries, num, mesh=mesh)[1]
    return vectors.rescore(rows, queries, ids, k)[1]

  return _jitted(search, rows, coarse, queries)


def _numpy(rows, queries, k):
  scores = queries @ rows.T
  ids = np.argpartition(scores, -k, axis=1)[:, -k:]
  order = np.argsort(-np.take_along_axis(scores, ids, axis=1), axis=1)
  return np.take_along_axis(ids, order, axis=1)


def _faiss(rows, queries, k, settings):
  import faiss

  index = faiss.IndexFlatIP(rows.shape[1])
  index.add(rows)

  def search():
    before = {name: getattr(faiss.cvar, name) for name in settings}
    for name, value in settings.items():
      setattr(faiss.cvar, name, value)
    ids = index.search(queries, k)[1]
    for name, value in before.items():
      setattr(faiss.cvar, name, value)
    return ids

  return search


def measure(ready: dict[str, Search], rounds: int) -> dict[str, np.ndarray]:
  """Seconds [rounds] of each."""
  programs = {k: lambda _, f=f: f() for k, f in ready.items()}
  return start.interleaved(programs, rounds)


def judge(rows, queries, ids, want) -> tuple[float, bool]:
  """Recall of ids [B, k] against want [B, k], and whether they are exact."""
  ids, want = np.asarray(ids), np.asarray(want)
  pairs = zip(ids, want, strict=True)
  recall = np.mean([np.isin(w, i).mean() for i, w in pairs])
  exact = True
  for query, *lists in zip(queries.astype(np.float64), ids, want, strict=True):
    found, best = (rows[i].astype(np.float64) @ query for i in lists)
    rounding = 1e-6 * np.abs(rows[lists[1]] * query).sum(1).max()
    exact = exact and bool(np.abs(found - best).max() <= rounding)
  return float(recall), exact


def report(rows, queries, k, dtype, rounds) -> str:
  """The table of a search."""
  made = searches(rows, queries, k, dtype)
  ready = {name: make() for name, make in made.items()}
  seconds = measure(ready | {"peak": peak()}, rounds)
  best = seconds.pop("peak")
  want = ready["NumPy"]()
  lines = [
    _sizes(rows, queries, k, dtype),
    "",
    _row("", "ms", "of ours", "recall", "exact"),
  ]
  for name, s in seconds.items():
    ratio = f"{np.median(s / seconds['ours']):.2f}"
    cells = [f"{1e3 * np.median(s):.1f}", ratio]
    if name != "product":
      recall, exact = judge(rows, queries, ready[name](), want)
      cells += [f"{recall:.4f}", "yes" if exact else "no"]
    lines.append(_row(name, *cells))
  reached = rates(len(rows), *queries.shape, seconds["ours"], best)
  lines += ["", f"ours: {reached}"]
  return "\n".join(lines + [_NO_FAISS] * (not has_faiss()))


def memory(rows, queries, k, dtype, dim) -> str:
  """The table of memory, each search in a process of its own."""
  command = [
    *(sys.executable, "-m", "benchmarks.mips", f"--rows={rows}"),
    *(f"--queries={queries}", f"--k={k}", f"--dim={dim}", f"--dtype={dtype}"),
  ]
  names = searches(*operands(1, 1, 1), 1)
  lines = [f"N={rows} B={queries} P={dim} k={k} {dtype}", "", _row("", "MB")]
  for name in names:
    run = subprocess.run(
      [*command, f"--only={name}"],
      cwd=pathlib.Path(__file__).parent.parent,
      capture_output=True,
      text=True,
      check=False,
    )
    cell = run.stdout.strip() or f"exit code {run.returncode}"  # out of memory
    lines.append(_row(name, cell))
  return "\n".join(lines + [_NO_FAISS] * (not has_faiss()))


def _sizes(rows, queries, k, dtype):
  device = jax.devices()[0].device_kind
  (n, p), b = rows.shape, len(queries)
  return f"N={n} B={b} P={p} k={k} {dtype}, {device}"


def _row(name: str, *cells: str) -> str:
  return f"{name:14}" + "".join(f"{cell:>10}" for cell in cells)


def main(f) -> None:
  if f.k > f.rows:
    raise InputError(f"--k={f.k}: there are only --rows={f.rows}")
  if f.memory:
    print(memory(f.rows, f.queries, f.k, f.dtype, f.dim))
    return
  rows, queries = operands(f.rows, f.queries, f.dim)
  if f.only:
    ready = searches(rows, queries, f.k, f.dtype)[f.only]()
    print(f"{risen(ready):.0f}")
    return
  print(report(rows, queries, f.k, f.dtype, f.rounds))


if __name__ == "__main__":
  flags.DEFINE_integer("rows", 500_000, "N, rows of the index", 1)
  flags.DEFINE_integer("queries", 64, "B", 1)
  flags.DEFINE_integer("k", 10, "how many to find", 1)
  flags.DEFINE_integer("dim", 128, "P, the size of a row", 1)
  flags.DEFINE_enum("dtype", "float32", DTYPES, "of the rows")
  flags.DEFINE_integer("rounds", 9, "how often each runs", 1)
  flags.DEFINE_bool("memory", False, "measure memory, not time")
  flags.DEFINE_string("only", "", "print the memory of one search")
  start.run(main)
