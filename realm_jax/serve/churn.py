"""How far two index versions of a run are apart: what a search finds, and rows.

The versions may be of two corpora; a block is the same in both if its article
and its text are.
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from realm_jax.data import features, qa
from realm_jax.data.blocks import BlockStore
from realm_jax.retrieval import evidence, index
from realm_jax.serve.run import Run, open_run

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


class Example(NamedTuple):
  """A query that finds other blocks in version B than in A.

  Attributes:
    query: its text.
    before, after: the blocks found in A and in B, best first, p(z|x) among
      them.
    kept: how many of A's are also B's.
    only_before, only_after: ids of the blocks that the other doesn't find.
  """

  query: str
  before: tuple[evidence.Evidence, ...]
  after: tuple[evidence.Evidence, ...]
  kept: int
  only_before: frozenset[int]
  only_after: frozenset[int]


class Changes(NamedTuple):
  """What a run's oldest and newest index version find otherwise.

  Attributes:
    before, after: numbers of the two versions.
    k: blocks found for a query.
    queries: what they are, in words.
    num_queries: asked.
    num_changed: of them, whose k blocks are others.
    examples: those that changed most, the most first.
  """

  before: int
  after: int
  k: int
  queries: str
  num_queries: int
  num_changed: int
  examples: list[Example]


def find_changes(
  workdir: pathlib.Path, k: int, num_queries: int, count: int
) -> Changes | None:
  """Asks a run's oldest and newest index version; None where it has not two.

  The queries are the dev questions of its data, evenly spread; first sentences
  of its blocks where there are none.

  Args:
    workdir: of the run.
    k: blocks found for a query.
    num_queries: asked, no more than there are.
    count: examples, no more than changed.

  Raises:
    InputError: as serve.run.open_run.
  """
  there = index.list_versions(workdir)
  if len(there) < 2:
    return None
  a, b = (open_run(workdir, str(v)) for v in (there[0], there[-1]))
  dev, what = a.data_dir / "qa" / "dev.jsonl", "dev questions"
  if dev.is_file():
    asked = [question.question for question in qa.read_qa(dev)]
    asked = [asked[i] for i in _spread(len(asked), num_queries)]
  else:
    asked, what = _sample(a.store, num_queries), "first sentences of blocks"
  found = examples(a, b, asked, k)
  k = min(k, len(a.store), len(b.store))
  return Changes(
    there[0], there[-1], k, what, len(asked), len(found), found[:count]
  )


def examples(a: Run, b: Run, queries: Sequence[str], k: int) -> list[Example]:
  """The queries whose evidence changed between two versions, the most first.

  Args:
    a, b: as measure's.
    queries: to choose from.
    k: blocks found for each.
  """
  k = min(k, len(a.store), len(b.store))
  same = _same_blocks(a.store, b.store)
  (scores_a, ids_a), (scores_b, ids_b) = (
    _find(a, x, queries, k) for x in (a, b)
  )
  found = []
  for row, query in enumerate(queries):
    in_a = same[ids_b[row]]  # B's blocks, as A numbers them
    both = set(ids_a[row].tolist()) & set(in_a.tolist())
    gone = frozenset(ids_a[row].tolist()) - both
    new = frozenset(ids_b[row][~np.isin(in_a, list(both))].tolist())
    if gone:
      shown = (
        evidence.make_evidence(ids[row], _log_probs(scores[row]), run.store)
        for ids, scores, run in ((ids_a, scores_a, a), (ids_b, scores_b, b))
      )
      found.append(Example(query, *shown, len(both), gone, new))
  return sorted(found, key=lambda example: example.kept)


def _log_probs(scores: np.ndarray) -> np.ndarray:
  return np.asarray(jax.nn.log_softmax(scores))


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
  found = [_find(a, x, texts, k)[1] for x in (a, b)]
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
  blocks = _spread(len(store), num_queries)
  return [store.sentences(block)[0] for block in blocks]


def _spread(there: int, wanted: int) -> list[int]:
  """So many of 0 .. there - 1, evenly spread, the first and the last too."""
  return np.linspace(0, there - 1, min(wanted, there)).astype(int).tolist()


def _find(
  asked: Run, searched: Run, texts: Sequence[str], k: int
) -> tuple[np.ndarray, np.ndarray]:
  """Scaled scores and ids [queries, k] in one version, embedded by the run
  asked."""
  find = jax.jit(
    lambda params, block_emb, query: searched.retrieval.search(
      block_emb, asked.retrieval.embed_query(params, query), k
    )
  )
  found = []
  for first in range(0, len(texts), _BATCH):
    part = list(texts[first : first + _BATCH])
    ids = asked.tokenizer.encode_batch(part + [""] * (_BATCH - len(part)))
    query = features.query_inputs(
      ids, asked.config["query_len"], asked.tokenizer
    )
    pair = find(asked.params, searched.block_emb, query)
    found.append([np.asarray(x)[: len(part)] for x in pair])
  scores, ids = map(np.concatenate, zip(*found, strict=True))
  return scores, ids


def _same_blocks(a: BlockStore, b: BlockStore) -> np.ndarray:
  """For each block of b its id in a, -1 where it isn't there."""
  if a.meta["corpus_hash"] == b.meta["corpus_hash"]:
    return np.arange(len(b))
  there = {(a.article_id(i), a.text(i)): i for i in range(len(a))}
  keys = ((b.article_id(i), b.text(i)) for i in range(len(b)))
  return np.array([there.get(key, -1) for key in keys])
