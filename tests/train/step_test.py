"""Training steps: against slow versions, on 1 device and on 8, and their HLO."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from realm_jax import sharding
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.reader import RealmReader
from realm_jax.retrieval import candidates
from realm_jax.retrieval.forward import ALL, Fill, Retrieval
from realm_jax.retrieval.refresh import BlockEmbedder, Index
from realm_jax.train import optimizer, step
from realm_jax.train.state import TrainState
from realm_jax.types import IctBatch
from tests import tiny_realm as tiny
from tests.train.bert_numbers import BERT

TX = optax.sgd(1.0)  # the new params are the old ones less the gradients
PARTS = {
  "ict": ("embedder",),
  "encoder": ("embedder", "encoder"),
  "pretrain": ("embedder", "encoder"),
  "finetune": ("embedder", "reader"),
}
# Sums over the batch are split over the devices, so float32 rounds elsewhere.
# Largest difference seen: 4e-5 of a tensor's largest gradient, or 1e-6.
TOLERANCE = 1e-4
# Packed tokens with room for all: of eight groups (each its longest sequence),
# and of one.
ROOMY = Fill(*[0.999] * 4)
CLOSE = Fill(query=0.9, block=0.8, joint=0.9, masks=0.8)


def make_step(kind, mesh, tx=TX, fill=ALL):
  """The step of a kind; interleaved refresh where there is one."""
  realm = tiny.realm(mesh, fill=fill)
  qa = tiny.open_qa(mesh, embed_found=True)
  qa = dataclasses.replace(qa, retrieval=realm.retrieval)
  embedder = BlockEmbedder(realm.retrieval, tiny.SLICE, mesh.size)
  return {
    "ict": lambda: step.make_ict_step(realm.retrieval, tx, 0),
    "encoder": lambda: step.make_encoder_step(realm, tx, 0, null_share=0.4),
    "pretrain": lambda: step.make_pretrain_step(realm, tx, 0, embedder, 1),
    "finetune": lambda: step.make_finetune_step(
      qa, tx, 0, tiny.BEAM, embedder, 1
    ),
  }[kind]()


def make_batch(kind):
  if kind == "finetune":
    return tiny.qa_batch(tiny.blocks())
  batch = tiny.pretrain_batch()
  if kind == "ict":
    ids = np.arange(tiny.B)
    block = candidates.block_inputs(
      candidates.gather_blocks(jax.tree.map(jnp.asarray, tiny.blocks()), ids),
      tiny.SPECIALS,
    )
    return IctBatch(batch.query, jax.tree.map(np.asarray, block), ids)
  if kind == "encoder":
    return batch.replace(own_block=np.arange(tiny.B, dtype=np.int32))
  return batch


def make_index(mesh, block_emb, params, shadow=True):
  def scalar(value):
    return sharding.replicate(np.asarray(value, np.int32), mesh)

  index = Index(sharding.shard_rows(block_emb, mesh), scalar(2), scalar(0))
  if not shadow:
    return index
  return index.replace(
    shadow=sharding.shard_rows(np.zeros_like(block_emb), mesh),
    shadow_params=sharding.replicate(params["embedder"], mesh),
    shadow_step=scalar(0),
  )


def stale_index(num_rows=tiny.ROWS):
  """An index of no params in particular: it only selects."""
  shape = (num_rows, tiny.SIZES.retriever_proj_size)
  return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


@functools.cache
def run_step(kind, num_devices, tx=TX, fill=ALL):
  """One step on a mesh -> state, index, metrics, and the params before it."""
  mesh = sharding.make_mesh(num_devices)
  params = tiny.params_of(*PARTS[kind])
  tokens = jax.tree.map(lambda x: sharding.shard_rows(x, mesh), tiny.blocks())
  run = jax.jit(make_step(kind, mesh, tx, fill))
  new = run(
    sharding.replicate(TrainState.create(params, tx), mesh),
    make_index(mesh, stale_index(), params),
    sharding.shard_batch(make_batch(kind), mesh),
    tokens,
  )
  return *new, params


@pytest.mark.parametrize(
  ("kind", "num_devices", "fill"),
  [
    *((kind, 8, ROOMY) for kind in PARTS),
    ("pretrain", 1, CLOSE),
  ],
)
def test_eight_devices_compute_the_same_and_padding_is_spared(
  kind, num_devices, fill
):
  one, index_1, metrics_1, params = run_step(kind, 1)
  eight, index_8, metrics_8, _ = run_step(kind, num_devices, fill=fill)
  assert metrics_1.keys() == metrics_8.keys()
  assert metrics_8["cut_tokens"] == 0
  assert metrics_8["padding"] <= metrics_1["padding"]
  for name, want in metrics_1.items():
    if name == "padding":
      continue
    np.testing.assert_allclose(
      metrics_8[name], want, rtol=1e-5, atol=1e-6, err_msg=name
    )
  old = dict(jax.tree_util.tree_leaves_with_path(params))
  got = dict(jax.tree_util.tree_leaves_with_path(eight.params))
  moved = 0
  for path, new in jax.tree_util.tree_leaves_with_path(one.params):
    want = np.asarray(old[path]) - np.asarray(new)  # the gradient
    size = np.abs(want).max()
    moved += size > 0
    np.testing.assert_allclose(
      np.asarray(old[path]) - np.asarray(got[path]),
      want,
      atol=TOLERANCE * size + 1e-6,
      err_msg=jax.tree_util.keystr(path),
    )
  assert moved > 20
  if kind in ("pretrain", "finetune"):  # the slice each step embeds
    filled = np.asarray(index_1.shadow).any(1)
    assert filled.sum() == tiny.SLICE  # one shard, one slice
    np.testing.assert_allclose(
      np.asarray(index_8.shadow)[filled],
      np.asarray(index_1.shadow)[filled],
      rtol=1e-4,
      atol=1e-5,
    )


def test_what_there_is_no_room_for_is_cut():
  """Half of the room: the masks that are left out count in no loss."""
  fill = Fill(joint=0.5, masks=0.4)
  realm, batch = tiny.realm(fill=fill), tiny.pretrain_batch()
  tokens, params = tiny.blocks(), tiny.params_of("embedder", "encoder")
  out = jax.jit(realm)(params, stale_index(), tokens, batch)
  columns = batch.mlm_mask.sum(0).cumsum() <= 0.4 * batch.mlm_mask.size + 1
  np.testing.assert_array_equal(out.mlm_mask, batch.mlm_mask * columns)
  assert 0 < out.mlm_mask.sum() < batch.mlm_mask.sum()
  assert 0.1 < out.room["cut_tokens"] < 0.5
  left_out = out.mlm_mask == 0
  assert not np.asarray(out.marginal_gold_log_probs)[left_out].any()
  exact = jax.jit(tiny.realm())(params, stale_index(), tokens, batch)
  assert not np.allclose(  # shorter evidence
    out.gold_log_probs[:, 1:, 0], exact.gold_log_probs[:, 1:, 0], rtol=1e-3
  )


# Slow versions: one sequence at a time, as a person would write it out.


@functools.partial(jax.jit, static_argnums=0)
def apply(module, *args, **kwargs):
  return module.apply(*args, **kwargs)


def padded(rows, width):
  """Lists of ids and of segments -> arrays [R, width], with their mask."""
  ids, segments, mask = (np.zeros((len(rows), width), np.int32) for _ in "abc")
  for i, (row, segment) in enumerate(rows):
    ids[i, : len(row)], segments[i, : len(row)] = row, segment
    mask[i, : len(row)] = 1
  return ids, segments, mask


def title_and_body(tokens, block):
  """Wordpieces of a block as lists; -1 is the null block."""
  if block < 0:
    return [], []
  row = tokens.token_ids[block, : tokens.lens[block]].tolist()
  title = tokens.title_lens[block]
  return row[:title], row[title:]


def query_row(query, b):
  return query.input_ids[b, : query.attention_mask[b].sum()].tolist()


def slow_embed(params, rows):
  """Embeds (ids, segments) rows by the module's own call."""
  ids, segments, mask = padded(rows, 16)
  out = apply(
    tiny.retrieval().embedder,
    {"params": params["embedder"]},
    ids,
    attention_mask=mask,
    token_type_ids=segments,
  )
  return np.asarray(out.projected_score, np.float64)


def slow_embed_query(params, query):
  rows = [query_row(query, b) for b in range(tiny.B)]
  return slow_embed(params, [(row, [0] * len(row)) for row in rows])


def slow_embed_blocks(params, tokens, blocks):
  rows = []
  for block in blocks:
    title, body = title_and_body(tokens, block)
    ids = [tiny.SPECIALS.cls, *title, tiny.SPECIALS.sep, *body]
    segments = [0] * (len(title) + 2) + [1] * (len(body) + 1)
    rows.append(([*ids, tiny.SPECIALS.sep], segments))
  return slow_embed(params, rows)


def joint_row(query, body):
  """`[CLS] query [SEP] body [SEP]`, the body cut to what is read."""
  body = [*body[: tiny.L - len(query) - 1], tiny.SPECIALS.sep]
  return query + body, [0] * len(query) + [1] * len(body)


def slow_search(block_emb, query_emb, k):
  scores = query_emb @ block_emb[: tiny.N].T
  return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def log_softmax(x):
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def slow_pretrain(params, tokens, batch, block_emb):
  """Loss, candidates, p(z|x) and retrieval utility, a query at a time."""
  query_emb = slow_embed_query(params, batch.query)
  found = slow_search(block_emb, query_emb, tiny.N)
  total, ids, probs, utility = 0.0, [], [], []
  for b in range(tiny.B):
    others = [i for i in found[b] if i != batch.own_block[b]]
    ids.append([-1, *others[: tiny.K - 1]])
    embedded = slow_embed_blocks(params, tokens, ids[b])
    log_p_z = log_softmax(0.3 * embedded @ query_emb[b])
    rows = [
      joint_row(query_row(batch.query, b), title_and_body(tokens, z)[1])
      for z in ids[b]
    ]
    input_ids, segments, mask = padded(rows, tiny.L)
    logits = apply(
      RealmKnowledgeAugEncoder(tiny.SIZES),
      {"params": params["encoder"]},
      input_ids,
      attention_mask=mask,
      token_type_ids=segments,
    )  # everywhere
    log_p = log_softmax(np.asarray(logits.logits, np.float64))  # [K, L, V]
    masked = np.flatnonzero(batch.mlm_mask[b])
    gains = []
    for m in masked:
      at, target = batch.mlm_positions[b, m], batch.mlm_targets[b, m]
      log_p_y = np.log(np.exp(log_p_z + log_p[:, at, target]).sum())
      total += log_p_y
      gains.append(log_p_y - log_p[0, at, target])
    probs.append(np.exp(log_p_z))
    utility.append(np.mean(gains))
  loss = -total / batch.mlm_mask.sum()
  return loss, np.array(ids), np.array(probs), np.mean(utility)


def test_pretrain_step_against_a_slow_one():
  params, tokens = tiny.params_of("embedder", "encoder"), tiny.blocks()
  batch, block_emb = tiny.pretrain_batch(), stale_index()
  block_emb[tiny.N :] = 100  # padding that would win
  found = slow_search(block_emb, slow_embed_query(params, batch.query), tiny.K)
  # Own blocks: none, the best, one in the middle, one that was not found.
  own = np.array([-1, found[1, 0], found[2, 1], (set(range(9)) - set(
    found[3].tolist())).pop(), -1, found[5, 0], -1, found[7, 2]])  # fmt: skip
  gold = np.array([found[0, 0], -1, found[2, 0], -1, 36, -1, -1, found[7, 2]])
  batch = batch.replace(own_block=own, gold_block=gold)
  loss, ids, probs, utility = slow_pretrain(params, tokens, batch, block_emb)
  mesh = sharding.make_mesh(1)
  state, _, metrics = jax.jit(make_step("pretrain", mesh))(
    TrainState.create(params, TX).replace(step=jnp.int32(7)),
    make_index(mesh, block_emb, params),
    batch,
    jax.tree.map(jnp.asarray, tokens),
  )
  entropy = -(probs * np.log(probs)).sum(1).mean()
  known = [g in ids[b] for b, g in enumerate(gold) if g >= 0]
  assert 0 < np.mean(known) < 1
  want = {
    "loss": loss,
    "retrieval_utility": utility,
    "null_mass": probs[:, 0].mean(),
    "candidate_entropy": entropy,
    "gold_in_candidates": np.mean(known),
    "index_version": 2,
    "index_staleness": 7,
  }
  got = {name: metrics[name] for name in want}
  for name, value in want.items():
    np.testing.assert_allclose(got[name], value, rtol=1e-4, err_msg=name)
  assert state.step == 8


def slow_finetune(params, tokens, batch, block_emb, embed_found):
  """Retriever and reader loss, a question at a time, by the reader's call."""
  query_emb = slow_embed_query(params, batch.question)
  found = slow_search(block_emb, query_emb, tiny.BEAM)
  losses = []
  for b in range(tiny.B):
    row, rows = query_row(batch.question, b), []
    block_mask = np.zeros((tiny.READ, tiny.L))
    has_answer = np.zeros(tiny.BEAM, bool)
    starts = np.full((tiny.BEAM, 2 * tiny.C), -1)
    ends = starts.copy()
    answers = [
      a[:n].tolist()
      for a, n in zip(batch.answer_ids[b], batch.answer_lens[b], strict=True)
      if n
    ]
    for slot, block in enumerate(found[b]):
      body = title_and_body(tokens, block)[1]
      seen = len(body[: tiny.L - len(row) - 1])
      places = [
        (t, t + len(a) - 1)
        for a in answers
        for t in range(len(body))
        if body[t : t + len(a)] == a
      ]
      has_answer[slot] = bool(places)
      for i, (first, last) in enumerate(places):
        if last < seen:  # the reader can only point at what it sees
          starts[slot, i], ends[slot, i] = len(row) + first, len(row) + last
      if slot < tiny.READ:
        rows.append(joint_row(row, body))
        block_mask[slot, len(row) : len(row) + seen] = 1
    block_rows = (
      slow_embed_blocks(params, tokens, found[b])
      if embed_found
      else block_emb[found[b]]
    )
    ids, segments, mask = padded(rows, tiny.L)
    out = apply(
      RealmReader(tiny.SIZES),
      {"params": params["reader"]},
      ids,
      attention_mask=mask,
      token_type_ids=segments,
      relevance_score=(0.3 * block_rows @ query_emb[b]).astype(np.float32),
      block_mask=block_mask,
      start_positions=starts,
      end_positions=ends,
      has_answers=has_answer,
    )
    losses.append((out.retriever_loss, out.reader_loss, has_answer.any()))
  return np.mean(np.array(losses, np.float64), axis=0)


@pytest.mark.parametrize("embed_found", [False, True])
def test_finetune_step_against_a_slow_one(embed_found):
  params, tokens = tiny.params_of("embedder", "reader"), tiny.blocks()
  batch, block_emb = tiny.qa_batch(tokens), stale_index()
  mesh = sharding.make_mesh(1)
  qa = tiny.open_qa(mesh, embed_found)
  embedder = BlockEmbedder(qa.retrieval, tiny.SLICE)
  run = step.make_finetune_step(qa, TX, 0, tiny.BEAM, embedder, 0)
  state, _, metrics = jax.jit(run)(
    TrainState.create(params, TX),
    make_index(mesh, block_emb, params, shadow=False),
    batch,
    jax.tree.map(jnp.asarray, tokens),
  )
  retriever_loss, reader_loss, answered = slow_finetune(
    params, tokens, batch, block_emb, embed_found
  )
  assert retriever_loss > 0 and reader_loss > 0 and 0 < answered < 1
  for name, want in {
    "retriever_loss": retriever_loss,
    "reader_loss": reader_loss,
    "loss": retriever_loss + reader_loss,
    "answer_in_beam": answered,
  }.items():
    np.testing.assert_allclose(metrics[name], want, rtol=1e-4, err_msg=name)
  assert metrics["exact_match"] <= metrics["reader_oracle"] <= answered
  assert norm(difference(state.params["embedder"], params["embedder"])) > 0


def norm(tree):
  return float(optax.global_norm(tree))


def difference(a, b):
  return jax.tree.map(jnp.subtract, a, b)


@dataclasses.dataclass(frozen=True)
class OneSided(Retrieval):
  """Gradients pass through the queries or through the candidates only."""

  side: str = "query"

  def embed_query(self, params, query, rng=None):
    emb = super().embed_query(params, query, rng)
    return emb if self.side == "query" else jax.lax.stop_gradient(emb)

  def embed_blocks(self, params, blocks, rng=None, fill=1.0):
    emb = super().embed_blocks(params, blocks, rng, fill)
    return emb if self.side == "block" else jax.lax.stop_gradient(emb)


def test_gradients_reach_queries_candidates_and_encoder():
  params, tokens = tiny.params_of("embedder", "encoder"), tiny.blocks()
  realm = tiny.realm()
  mesh = sharding.make_mesh(1)

  def gradients(retrieval):
    run = step.make_pretrain_step(
      dataclasses.replace(realm, retrieval=retrieval),
      TX,
      0,
      BlockEmbedder(retrieval, tiny.SLICE),
      0,
    )
    state, _, _ = jax.jit(run)(
      TrainState.create(params, TX),
      make_index(mesh, stale_index(), params, shadow=False),
      tiny.pretrain_batch(),
      jax.tree.map(jnp.asarray, tokens),
    )
    return difference(params, state.params)

  whole = gradients(realm.retrieval)
  sides = [
    gradients(OneSided(**vars(realm.retrieval), side=side))["embedder"]
    for side in ("query", "block")
  ]
  size = norm(whole["embedder"])
  assert norm(whole["encoder"]) > 0 and size > 0
  assert min(map(norm, sides)) > 0.01 * size
  both = jax.tree.map(jnp.add, *sides)
  assert norm(difference(both, whole["embedder"])) < 1e-4 * size


def test_a_retriever_of_learning_rate_0_stays():
  tx = optimizer.bert_adam(0.1, 0, 10, lr_scales={"embedder": 0.0}, **BERT)
  state, _, _, params = run_step("pretrain", 1, tx)
  assert norm(difference(state.params["embedder"], params["embedder"])) == 0
  assert norm(difference(state.params["encoder"], params["encoder"])) > 0


def collectives(hlo):
  """Name and sizes of what each collective of a program gives."""
  kinds = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
  found = re.findall(rf"= (\(?[^=]*?) ({kinds})(?:-start)?\(", hlo)
  return [
    (kind, [np.prod([int(n) for n in dims.split(",") if n])
            for dims in re.findall(r"\w\[([\d,]*)\]", shapes)])
    for shapes, kind in found
  ]  # fmt: skip


def test_no_whole_array_crosses_the_mesh():
  """Only short lists, the blocks found and gradients pass between devices."""
  mesh = sharding.make_mesh(8)
  rows = 8 * 640
  realm = tiny.realm(mesh, num_blocks=rows)
  params = tiny.params_of("embedder", "encoder")
  tokens = jax.tree.map(
    lambda x: sharding.shard_rows(x, mesh), tiny.blocks(rows, rows)
  )
  embedder = BlockEmbedder(realm.retrieval, tiny.SLICE, mesh.size)
  run = step.make_pretrain_step(realm, TX, 0, embedder, 1)
  compiled = (
    jax.jit(run)
    .lower(
      sharding.replicate(TrainState.create(params, TX), mesh),
      make_index(mesh, stale_index(rows), params),
      sharding.shard_batch(tiny.pretrain_batch(), mesh),
      tokens,
    )
    .compile()
  )
  passed = collectives(compiled.as_text())
  assert {kind for kind, _ in passed} >= {"all-gather", "all-reduce"}
  num_params = max(np.size(x) for x in jax.tree.leaves(params))
  found = tiny.B * tiny.K * tiny.C  # the tokens of the candidates
  most = max(num_params, found)
  assert most < rows  # or an [N] array would go unnoticed
  assert max(max(sizes) for _, sizes in passed) <= most
