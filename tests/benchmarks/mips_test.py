"""The search benchmark at a tiny size: every row there, exactness judged."""

import mmap

import numpy as np
import pytest

from benchmarks import mips, mips_grid

SIZES = (700, 5, 16)  # N, B, P


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_table(dtype):
  rows, queries = mips.operands(*SIZES)
  lines = mips.report(rows, queries, 9, dtype, rounds=2).splitlines()
  assert lines[0].startswith(f"N=700 B=5 P=16 k=9 {dtype}")
  cells = {x[:14].strip(): x[14:].split() for x in lines[3:] if x}
  names = ["ours", "NumPy", "lax.top_k", "product"]
  names += ["FAISS", "FAISS tuned"] * mips.has_faiss()
  assert list(cells)[: len(names)] == names
  assert cells["ours"][1:] == ["1.00", "1.0000", "yes"]
  assert len(cells["product"]) == 2
  assert "ours: " in "".join(lines) and lines[
    -1 - (not mips.has_faiss())
  ].endswith("%")
  assert (lines[-1] == mips._NO_FAISS) != mips.has_faiss()


def test_the_share_of_the_peak():
  side = np.array([0.5, 0.25])  # 2 * 2048^3 / 0.25 s
  assert (
    mips.rates(10_000_000, 64, 16, np.array([1.0, 2, 3]), side)
    == "10 of 69 GFLOP/s, 15%"
  )


@pytest.mark.skipif(not mips.has_faiss(), reason="compares with FAISS")
@pytest.mark.parametrize(
  ("dtype", "shards"), [("float32", 1), ("float32", 4), ("bfloat16", 2)]
)
def test_a_line_of_the_grid(dtype, shards):
  operands = mips.operands(*SIZES)
  cells = mips_grid.line(*operands, 9, 2, dtype, shards).split()
  assert cells[:4] == ["700", str(shards), "5", "9"] and cells[-1] == "1.0000"


def test_what_is_not_exact_is_seen():
  rows, queries = mips.operands(*SIZES)
  want = mips._numpy(rows, queries, 9)
  assert mips.judge(rows, queries, want, want) == (1, True)
  wrong = want.copy()
  wrong[3, 8] = np.argmin(rows @ queries[3])
  recall, exact = mips.judge(rows, queries, wrong, want)
  assert recall == pytest.approx(44 / 45) and not exact
  assert not mips.judge(rows, queries, want[:, ::-1], want)[1]  # out of order


def test_memory_is_that_of_the_search():
  def search():  # pages of its own: malloc may hand out what is there already
    with mmap.mmap(-1, 40_000_000) as pages:
      pages.write(bytes(40_000_000))

  assert 30 < mips.risen(search) < 100
