"""The search benchmark at a tiny size: every row there, exactness judged."""

import numpy as np
import pytest

from benchmarks import mips

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
  assert (lines[-1] == mips._NO_FAISS) != mips.has_faiss()


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
  assert 30 < mips.risen(lambda: np.ones(40_000_000, np.int8)) < 60
