"""What pre-training has learnt, on masked queries that it never saw.

For each query: what retrieval is worth to the prediction (retrieval utility),
what the known gold block would be worth (the encoder's share of that), whether
the search finds the gold block (the retriever's share), and how much of p(z|x)
lies on the null block. Values are kept per query, so that two states of a
model can be compared in pairs.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from realm_jax import progress, sharding
from realm_jax.data import input_pipeline
from realm_jax.evals import retrieval
from realm_jax.evals.exact_match import mean_and_se
from realm_jax.models import objective
from realm_jax.retrieval import candidates
from realm_jax.retrieval.block_tokens import Tokens
from realm_jax.retrieval.realm import Realm
from realm_jax.types import Array, PretrainBatch

_SEARCHED = max(retrieval.CUTOFFS)
_HELD_OUT = ("dev", "test")


@struct.dataclass
class QueryScores:
  """Scores of masked queries, one row a query.

  Attributes:
    example_ids: [B], -1 on rows that only fill the last batch.
    retrieval_utility: [B] log p(y|x) - log p(y|null,x), mean over the masks.
    gold_utility: [B] log p(y|gold,x) - log p(y|null,x), mean over the masks;
      NaN where no gold block is known.
    nll: [B] -log p(y|x), mean over the masks.
    null_mass: [B] p(null block | x).
    found: [B, 20] block ids the search found, best first, own block left out.
    gold_block: [B], -1 where not known.
  """

  example_ids: Array
  retrieval_utility: Array
  gold_utility: Array
  nll: Array
  null_mass: Array
  found: Array
  gold_block: Array

  def recall(self) -> dict[int, np.ndarray]:
    """{k: [B] whether the gold block is among the first k, NaN if unknown}."""
    gold = [None if b < 0 else (b,) for b in self.gold_block.tolist()]
    return retrieval.gold_hits(self.found, gold)


@functools.partial(jax.jit, static_argnums=0)
def score_batch(
  realm: Realm,
  params,
  block_emb: Array,
  tokens: Tokens,
  batch: PretrainBatch,
) -> QueryScores:
  """Scores one batch as a training step would see it, without dropout."""
  query_emb = realm.retrieval.embed_query(params, batch.query)
  k = max(_SEARCHED + 1, realm.num_candidates)
  _, ids = realm.retrieval.search(block_emb, query_emb, k)
  ids = candidates.drop_trivial(ids, batch.own_block, k)  # null block first
  output = realm.given(params, tokens, batch, ids[:, : realm.num_candidates])
  # A query's own block is no evidence that the search could have found.
  known = (batch.gold_block >= 0) & (batch.gold_block != batch.own_block)
  gold_block = jnp.where(known, batch.gold_block, candidates.NULL)
  num_masks = jnp.maximum(batch.mlm_mask.sum(-1), 1)
  marginal = output.marginal_gold_log_probs  # [B, M] or [B, 1]
  return QueryScores(
    example_ids=batch.example_ids,
    retrieval_utility=objective.retrieval_utility(
      marginal, output.gold_log_probs, batch.mlm_mask
    ),
    gold_utility=jnp.where(
      known,
      _gold_utility(realm, params, tokens, batch, gold_block, output),
      jnp.nan,
    ),
    nll=-marginal.sum(-1) / num_masks,
    null_mass=jnp.exp(output.candidate_log_probs[:, 0]),
    found=ids[:, 1 : _SEARCHED + 1],
    gold_block=gold_block,
  )


def _gold_utility(realm, params, tokens, batch, gold_block, output):
  """log p(y|gold,x) - log p(y|null,x), mean over a query's masks, [B]."""
  blocks = realm.retrieval.gather_blocks(tokens, gold_block[:, None])
  logits = realm.read(params, batch, blocks)  # [B, 1, M, V]
  gold = objective.gold_log_probs(logits, batch.mlm_targets)[:, 0]  # [B, M]
  gain = (gold - output.gold_log_probs[:, 0]) * batch.mlm_mask
  return gain.sum(-1) / jnp.maximum(batch.mlm_mask.sum(-1), 1)


def score_queries(
  realm: Realm,
  params,
  block_emb: Array,
  tokens: Tokens,
  batches: Iterable[PretrainBatch],
  place_batch: Callable = jax.device_put,
) -> QueryScores:
  """Scores a whole set of queries.

  Args:
    realm: the model.
    params: {"embedder", "encoder"}.
    block_emb: [N, P] the index to search.
    tokens: of the N blocks.
    batches: all of one shape; rows with example_ids < 0 are left out.
    place_batch: puts a batch where the params are.

  Returns:
    NumPy arrays, in the order of the batches.
  """
  scored = []
  for batch in progress.track(batches, "batch of masked queries"):
    rows = score_batch(realm, params, block_emb, tokens, place_batch(batch))
    # The host's ids: on a device int64 may lose its upper half.
    rows = sharding.fetch(rows).replace(example_ids=batch.example_ids)
    scored.append(rows)
  if not scored:
    raise ValueError("no batch of queries to score")
  whole = jax.tree.map(lambda *parts: np.concatenate(parts), *scored)
  return jax.tree.map(lambda x: x[whole.example_ids >= 0], whole)


def score_run(
  run: Any, num_queries: int | None = None, batch_size: int = 16
) -> QueryScores:
  """Scores a run on held-out queries, by its own index.

  Args:
    run: serve.run.Run with an encoder.
    num_queries: the first so many, up to a whole batch; None: all.
    batch_size: queries at a time.
  """
  batches = (
    batch
    for split in _HELD_OUT
    for batch in input_pipeline.pretrain_eval_batches(
      run.data_dir,
      split,
      batch_size=batch_size,
      query_len=run.config["query_len"],
      max_masks=run.config["max_masks"],
    )
  )
  if num_queries is not None:
    batches = itertools.islice(batches, -(-num_queries // batch_size))
  return score_queries(
    run.realm, run.params, run.block_emb, run.tokens, batches
  )


def summarize(scores: QueryScores) -> Iterator[tuple[str, float]]:
  """Means and standard errors as (name, value) pairs."""
  columns = {
    field.name: getattr(scores, field.name)
    for field in dataclasses.fields(scores)
    if field.name in ("retrieval_utility", "gold_utility", "nll", "null_mass")
  }
  columns |= {f"recall_{k}": hits for k, hits in scores.recall().items()}
  for name, values in columns.items():
    mean, error = mean_and_se(values)
    if not np.isnan(mean):  # nothing was judged
      yield name, mean
      yield f"{name}_se", error


def make_evaluator(
  realm: Realm,
  tokens: Tokens,
  make_batches: Callable[[], Iterable[PretrainBatch]],
  place_batch: Callable = jax.device_put,
) -> Callable:
  """The loop's evaluator: fn(state, index) -> (name, value) pairs.

  Args:
    realm: the model.
    tokens: of all blocks, where the index lies.
    make_batches: starts the evaluation set from its beginning.
    place_batch: puts a batch where the params are.
  """

  def evaluate(state, index):
    scores = score_queries(
      realm,
      state.params,
      index.block_emb,
      tokens,
      make_batches(),
      place_batch,
    )
    return list(summarize(scores))

  return evaluate
