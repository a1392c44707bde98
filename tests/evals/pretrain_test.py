"""The evaluator against the training forward pass and slow NumPy."""

import types

import jax
import numpy as np
import pytest

from realm_jax.config import RealmConfig
from realm_jax.evals import pretrain
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.retrieval import candidates
from realm_jax.retrieval.realm import Realm
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.types import BlockTokens, Inputs, PretrainBatch

B, K, Q, C, M, V, N = 3, 4, 9, 13, 2, 37, 29
SPECIALS = candidates.Specials(pad=0, cls=2, sep=3, mask=4)
CONFIG = RealmConfig(
  vocab_size=V,
  hidden_size=16,
  retriever_proj_size=6,
  num_hidden_layers=1,
  num_attention_heads=2,
  intermediate_size=20,
  max_position_embeddings=32,
  initializer_range=0.5,
)


def _tokens(rng):
  lens = rng.integers(3, C - 2, N).astype(np.int32)
  ids = rng.integers(5, V, (N, C - 3)).astype(np.int32)
  ids[np.arange(C - 3) >= lens[:, None]] = 0
  return BlockTokens(ids, np.minimum(lens - 1, 2), lens)


def _batch(rng, example_ids, own_block, gold_block):
  ids = rng.integers(5, V, (B, Q)).astype(np.int32)
  ids[:, 0], ids[:, -1], ids[:, 1:3] = 2, 3, 4
  mask = np.ones((B, M), np.int32)
  mask[1, 1] = 0
  return PretrainBatch(
    query=Inputs(ids, np.ones_like(ids), np.zeros_like(ids)),
    mlm_positions=np.tile(np.array([1, 2], np.int32), (B, 1)),
    mlm_targets=rng.integers(5, V, (B, M)).astype(np.int32),
    mlm_mask=mask,
    own_block=np.array(own_block, np.int32),
    gold_block=np.array(gold_block, np.int32),
    example_ids=np.array(example_ids, np.int64),
  )


@pytest.fixture(scope="module")
def world():
  rng = np.random.default_rng(0)
  tokens = jax.device_put(_tokens(rng))
  embedder = RealmEmbedder(CONFIG)
  encoder = RealmKnowledgeAugEncoder(CONFIG)
  ids = np.ones((1, 8), np.int32)
  keys = jax.random.split(jax.random.key(0))
  params = {
    "embedder": jax.jit(embedder.init)(keys[0], ids)["params"],
    "encoder": jax.jit(encoder.init)(keys[1], ids)["params"],
  }
  realm = Realm(Retrieval(embedder, SPECIALS, N), encoder, K, joint_len=14)
  block_emb = jax.jit(realm.retrieval.embed_blocks)(params, tokens)
  batches = [
    _batch(rng, [11, 12, 2**40], [-1, 5, 7], [4, 6, 7]),
    _batch(rng, [14, -1, -1], [-1, -1, -1], [-1, 2, 2]),
  ]
  return types.SimpleNamespace(
    realm=realm,
    params=params,
    block_emb=block_emb,
    tokens=tokens,
    batches=batches,
    scores=pretrain.score_queries(realm, params, block_emb, tokens, batches),
  )


def test_padding_rows_are_left_out(world):
  assert world.scores.example_ids.tolist() == [11, 12, 2**40, 14]
  assert world.scores.found.shape == (4, 20)


def test_utility_is_that_of_the_training_forward_pass(world):
  batch = world.batches[0]
  out = jax.jit(world.realm)(world.params, world.block_emb, world.tokens, batch)
  gold = np.asarray(out.gold_log_probs)  # [B, K, M]
  p_z = np.exp(out.candidate_log_probs)
  for b in range(B):
    places = np.flatnonzero(batch.mlm_mask[b])
    per_mask = [
      np.log(sum(p_z[b, k] * np.exp(gold[b, k, m]) for k in range(K)))
      for m in places
    ]
    null = [gold[b, 0, m] for m in places]
    utility = np.mean(np.array(per_mask) - null)
    np.testing.assert_allclose(
      world.scores.retrieval_utility[b], utility, atol=1e-5
    )
    np.testing.assert_allclose(
      world.scores.nll[b], -np.mean(per_mask), atol=1e-5
    )
  np.testing.assert_allclose(world.scores.null_mass[:B], p_z[:, 0], rtol=1e-5)


def test_found_is_the_ranking_without_the_own_block(world):
  query_emb = jax.jit(world.realm.retrieval.embed_query)(
    world.params, world.batches[0].query
  )
  scores = np.asarray(query_emb) @ np.asarray(world.block_emb).T
  for b, own in enumerate([-1, 5, 7]):
    ranking = [i for i in np.argsort(-scores[b]) if i != own]
    assert world.scores.found[b].tolist() == ranking[:20]
    gold = [4, 6, None][b]  # 7 is its query's own block: no evidence
    for k, hits in world.scores.recall().items():
      if gold is None:
        assert np.isnan(hits[b])
      else:
        assert hits[b] == (gold in ranking[:k])


def test_gold_utility_reads_the_gold_block(world):
  ids = np.array([[-1, 4], [-1, 6], [-1, 0]], np.int32)
  out = jax.jit(world.realm.given)(
    world.params, world.tokens, world.batches[0], ids
  )
  gold = np.asarray(out.gold_log_probs)
  gain = gold[:, 1] - gold[:, 0]
  expected = [gain[0].mean(), gain[1, 0]]  # the second query has one mask
  np.testing.assert_allclose(world.scores.gold_utility[:2], expected, atol=1e-5)
  assert np.isnan(world.scores.gold_utility[2:]).all()


def test_evaluator_yields_means_with_errors(world):
  evaluate = pretrain.make_evaluator(
    world.realm, world.tokens, lambda: world.batches
  )
  state = types.SimpleNamespace(params=world.params)
  index = types.SimpleNamespace(block_emb=world.block_emb)
  with jax.transfer_guard("disallow"):
    figures = dict(evaluate(state, index))
  utility = world.scores.retrieval_utility
  assert figures["retrieval_utility"] == pytest.approx(utility.mean())
  error = utility.std(ddof=1) / 2  # four queries
  assert figures["retrieval_utility_se"] == pytest.approx(error)
  for name in ("gold_utility", "nll", "null_mass", "recall_1", "recall_5",
               "recall_20"):  # fmt: skip
    assert name in figures and f"{name}_se" in figures


def test_no_gold_at_all_leaves_its_figures_out(world):
  batch = world.batches[0].replace(gold_block=np.full(B, -1, np.int32))
  scores = pretrain.score_queries(
    world.realm, world.params, world.block_emb, world.tokens, [batch]
  )
  names = dict(pretrain.summarize(scores))
  assert "retrieval_utility" in names
  assert not {"gold_utility", "recall_5"} & set(names)


def test_a_run_is_scored_on_all_held_out_queries_or_the_first(monkeypatch):
  asked = []

  def batches(data_dir, split, **sizes):
    asked.append((data_dir, sizes))
    return [f"{split} {i}" for i in range(2)]

  monkeypatch.setattr(pretrain.input_pipeline, "pretrain_eval_batches", batches)
  monkeypatch.setattr(pretrain, "score_queries", lambda *given: [*given[-1]])
  run = types.SimpleNamespace(
    realm=None, params=None, block_emb=None, tokens=None, data_dir="data",
    config={"query_len": 7, "max_masks": 3},
  )  # fmt: skip
  every = ["dev 0", "dev 1", "test 0", "test 1"]
  assert pretrain.score_run(run) == every
  sizes = {"batch_size": 16, "query_len": 7, "max_masks": 3}
  assert asked == [("data", sizes)] * 2
  for num_queries, count in ((1, 1), (4, 1), (5, 2), (9, 3), (99, 4)):
    assert pretrain.score_run(run, num_queries, 4) == every[:count]
