"""How far two index versions of a run are apart: what a search finds, and rows.

The versions may be of two corpora; a block is the same in both if its article
and its text are.
"""

from typing import NamedTuple

import jax
import numpy as np

from realm_jax.data import features
from realm_jax.data.blocks import BlockStore
from realm_jax.serve.run import Run

_BATCH = 64  # queries embedded and searched at a time


class Churn(NamedTuple):
  """What differs between versions A and B.

  Attributes:
    num_queries: in the sample.
    k: blocks found for each.
    overlap: mean share of the k blocks that A finds and B finds too.
    only_a, only_b, both: blocks in one of them, in both.
    changed: blocks in both whose rows differ.
    moved: of those, mean of |a - b| / |a|; 0 where there are none.
    most: of those, the greatest.
  """

  num_queries: int
  k: int
  overlap: float
  only_a: int
  only_b: int
  both: int
  changed: int
  moved: float
  most: float


def measure(a: Run, b: Run, k: int, num_queries: int) -> Churn:
  """Compares two versions that one run was opened with.

  The queries are first sentences of blocks of A, evenly spread, embedded with
  the run's params.

  Args:
    a: serve.run.open_run(workdir, A).
    b: the same with B.
    k: blocks found for a query; no more than there are.
    num_queries: no more than A has blocks.
  """
  k = min(k, len(a.store), len(b.store))
  texts = _sample(a.store, num_queries)
  same = _same_blocks(a.store, b.store)  # [N of B] ids in A, -1: not in A
  found = [_find(a, a, texts, k), _find(a, b, texts, k)]
  found[1] = same[found[1]]
  shared = [np.intersect1d(*ids).size for ids in zip(*found, strict=True)]
  both = same >= 0
  rows = np.asarray(a.block_emb, np.float32)[same[both]]
  others = np.asarray(b.block_emb, np.float32)[both]
  moved = np.linalg.norm(rows - others, axis=1)
  moved = (moved / np.linalg.norm(rows, axis=1))[moved > 0]
  return Churn(
    num_queries=len(texts),
    k=k,
    overlap=float(np.mean(shared) / k),
    only_a=len(a.store) - int(both.sum()),
    only_b=len(b.store) - int(both.sum()),
    both=int(both.sum()),
    changed=len(moved),
    moved=float(moved.mean()) if len(moved) else 0.0,
    most=float(moved.max()) if len(moved) else 0.0,
  )


def in_words(churn: Churn) -> str:
  """What a person reads."""
  c = churn
  return (
    f"overlap@{c.k} of {c.num_queries} queries: {c.overlap:.3f}\n"
    f"blocks: {c.both} in both, {c.only_a} in the first only, {c.only_b} in the"
    f" second only\n"
    f"rows changed: {c.changed} of {c.both}, by {c.moved:.3g} of their length"
    f" (at most {c.most:.3g})"
  )


def _sample(store: BlockStore, num_queries: int) -> list[str]:
  count = min(num_queries, len(store))
  blocks = np.linspace(0, len(store) - 1, count).astype(int)
  return [store.sentences(block)[0] for block in blocks.tolist()]


def _find(asked: Run, searched: Run, texts: list[str], k: int) -> np.ndarray:
  """Ids [queries, k] in one version, the queries embedded by the run."""
  find = jax.jit(
    lambda params, block_emb, query: searched.retrieval.search(
      block_emb, asked.retrieval.embed_query(params, query), k
    )[1]
  )
  found = []
  for first in range(0, len(texts), _BATCH):
    part = texts[first : first + _BATCH]
    ids = asked.tokenizer.encode_batch(part + [""] * (_BATCH - len(part)))
    query = features.query_inputs(
      ids, asked.config["query_len"], asked.tokenizer
    )
    ids = find(asked.params, searched.block_emb, query)
    found.append(np.asarray(ids)[: len(part)])
  return np.concatenate(found)


def _same_blocks(a: BlockStore, b: BlockStore) -> np.ndarray:
  """For each block of b its id in a, -1 where it isn't there."""
  if a.meta["corpus_hash"] == b.meta["corpus_hash"]:
    return np.arange(len(b))
  there = {(a.article_id(i), a.text(i)): i for i in range(len(a))}
  keys = ((b.article_id(i), b.text(i)) for i in range(len(b)))
  return np.array([there.get(key, -1) for key in keys])
