"""Training steps: against slow versions, on 1 device and on 8, and their HLO."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from realm_jax import sharding
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.reader import RealmReader
from realm_jax.retrieval import block_tokens, candidates
from realm_jax.retrieval.refresh import BlockEmbedder, Index
from realm_jax.retrieval.retrieve import ALL, Fill, Retrieval
from realm_jax.train import optimizer, step
from realm_jax.train.state import TrainState
from realm_jax.types import IctBatch
from tests import tiny_realm as tiny
from tests.train.bert_numbers import BERT

TX = optax.sgd(1.0)  # the new params are the old ones less the gradients
# Many rows, so that an array of them is larger than anything else.
N, ROWS = 8 * 640 - 3, 8 * 640
PARTS = {
  "ict": ("embedder",),
  "encoder": ("embedder", "encoder"),
  "pretrain": ("embedder", "encoder"),
  "finetune": ("embedder", "reader"),
  "finetune as found": ("embedder", "reader"),
}
SHADOWED = ("pretrain", "finetune")  # an index slice is part of the step
# Sums over the batch are split over the devices, so float32 rounds elsewhere.
# Largest difference seen: 4e-5 of a tensor's largest gradient, or 1e-6.
TOLERANCE = 1e-4
# Packed tokens with room for all: of eight groups (each its longest sequence),
# and of one.
ROOMY = Fill(*[0.999] * 4)
CLOSE = Fill(query=0.9, block=0.8, joint=0.9, masks=0.8)


def make_step(kind, mesh, fill):
  """The step of a kind; interleaved refresh where there is one."""
  more = {"num_blocks": N, "fill": fill}
  realm = tiny.realm(mesh, **more)
  qa = tiny.open_qa(mesh, embed_found=kind == "finetune", **more)
  embedder = BlockEmbedder(realm.retrieval, tiny.SLICE, mesh.size)
  if kind == "ict":
    return step.make_ict_step(realm.retrieval, TX, 0)
  if kind == "encoder":
    return step.make_encoder_step(realm, TX, 0, null_share=0.4)
  if kind == "pretrain":
    return step.make_pretrain_step(realm, TX, 0, embedder, 1)
  return step.make_finetune_step(
    qa, TX, 0, tiny.BEAM, embedder, int(kind == "finetune")
  )


@functools.cache
def blocks():
  return tiny.blocks(N, ROWS)


def make_batch(kind):
  if kind.startswith("finetune"):
    return tiny.qa_batch(blocks())
  batch = tiny.pretrain_batch()
  if kind == "ict":
    ids = np.arange(tiny.B)
    block = candidates.block_inputs(
      block_tokens.gather_blocks(jax.tree.map(jnp.asarray, blocks()), ids),
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


def stale_index():
  """An index of no params in particular: it only selects."""
  shape = (ROWS, tiny.SIZES.retriever_proj_size)
  return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def arguments(kind, mesh, batch=None, block_emb=None, at_step=0):
  """What a step is called with, on the mesh."""
  params = tiny.params_of(*PARTS[kind])
  state = TrainState.create(params, TX).replace(step=np.int32(at_step))
  block_emb = stale_index() if block_emb is None else block_emb
  return (
    sharding.replicate(state, mesh),
    make_index(mesh, block_emb, params, shadow=kind in SHADOWED),
    sharding.shard_batch(make_batch(kind) if batch is None else batch, mesh),
    jax.tree.map(lambda x: sharding.shard_rows(x, mesh), blocks()),
  )


@functools.cache
def compiled(kind, num_devices, fill):
  """The program of a step, the same for all tests."""
  mesh = sharding.make_mesh(num_devices)
  run = jax.jit(make_step(kind, mesh, fill))
  return run.lower(*arguments(kind, mesh)).compile()


def run_step(kind, num_devices=1, fill=ALL, **changed):
  """One step on a mesh -> state, index, metrics, and the params before it."""
  args = arguments(kind, sharding.make_mesh(num_devices), **changed)
  new = compiled(kind, num_devices, fill)(*args)
  return *new, tiny.params_of(*PARTS[kind])


@pytest.mark.parametrize(
  ("kind", "num_devices", "fill"),
  [
    pytest.param("ict", 8, ROOMY, marks=pytest.mark.nightly),
    pytest.param("encoder", 8, ROOMY, marks=pytest.mark.nightly),
    # tests/sharding/step_test.py has it every time, on a mesh of all axes
    pytest.param("pretrain", 8, ROOMY, marks=pytest.mark.nightly),
    pytest.param("finetune", 8, ROOMY, marks=pytest.mark.nightly),
    pytest.param("pretrain", 1, CLOSE, marks=pytest.mark.nightly),
  ],
)
def test_eight_devices_compute_the_same_and_padding_is_spared(
  kind, num_devices, fill
):
  one, index_1, metrics_1, params = run_step(kind, 1)
  eight, index_8, metrics_8, _ = run_step(kind, num_devices, fill=fill)
  assert metrics_1.keys() == metrics_8.keys()
  assert metrics_8["cut_tokens"] == 0
  assert float(metrics_8["padding"]) <= float(metrics_1["padding"])
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
  if kind in SHADOWED:  # the slice each step embeds
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
  scores = query_emb @ block_emb[:N].T
  return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def log_softmax(x):
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def slow_pretrain(params, tokens, batch, block_emb):
  """Loss, candidates, p(z|x) and retrieval utility, a query at a time."""
  query_emb = slow_embed_query(params, batch.query)
  found = slow_search(block_emb, query_emb, tiny.K + 1)
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
  params, tokens = tiny.params_of("embedder", "encoder"), blocks()
  batch, block_emb = tiny.pretrain_batch(), stale_index()
  block_emb[N:] = 100  # padding that would win
  found = slow_search(block_emb, slow_embed_query(params, batch.query), tiny.K)
  # Own blocks: none, the best, one in the middle, one that was not found.
  own = np.array([-1, found[1, 0], found[2, 1], (set(range(9)) - set(
    found[3].tolist())).pop(), -1, found[5, 0], -1, found[7, 2]])  # fmt: skip
  gold = np.array([found[0, 0], -1, found[2, 0], -1, 36, -1, -1, found[7, 2]])
  batch = batch.replace(
    own_block=own.astype(np.int32), gold_block=gold.astype(np.int32)
  )
  loss, ids, probs, utility = slow_pretrain(params, tokens, batch, block_emb)
  state, _, metrics, _ = run_step(
    "pretrain", batch=batch, block_emb=block_emb, at_step=7
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


@pytest.mark.parametrize(
  "kind",
  [pytest.param("finetune as found", marks=pytest.mark.nightly), "finetune"],
)
def test_finetune_step_against_a_slow_one(kind):
  state, _, metrics, params = run_step(kind)
  retriever_loss, reader_loss, answered = slow_finetune(
    params, blocks(), make_batch(kind), stale_index(), kind == "finetune"
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
  """Gradients pass through the queries (1) or through the candidates (0)."""

  queries: jax.Array | float = 1.0

  def embed_query(self, params, query, rng=None):
    emb = super().embed_query(params, query, rng)
    return let_through(emb, self.queries)

  def embed_blocks(self, params, blocks, rng=None, fill=1.0):
    emb = super().embed_blocks(params, blocks, rng, fill)
    return let_through(emb, 1 - self.queries)


def let_through(x, share):
  """x, and this share of its gradient."""
  still = jax.lax.stop_gradient(x)
  return still + share * (x - still)


def test_gradients_reach_queries_candidates_and_encoder():
  state, _, _, params = run_step("pretrain")
  whole = difference(params, state.params)

  @jax.jit
  def one_sided(queries, state, index, batch, tokens):
    """The embedder's gradient."""
    realm = tiny.realm(num_blocks=N)
    retrieval = OneSided(**vars(realm.retrieval), queries=queries)
    realm = dataclasses.replace(realm, retrieval=retrieval)
    run = step.make_pretrain_step(realm, TX, 0, None, 0)
    new, _, _ = run(state, index, batch, tokens)
    return difference(state.params["embedder"], new.params["embedder"])

  args = arguments("pretrain", sharding.make_mesh(1))
  sides = [one_sided(queries, *args) for queries in (1.0, 0.0)]
  size = norm(whole["embedder"])
  assert norm(whole["encoder"]) > 0 and size > 0
  assert min(map(norm, sides)) > 0.01 * size
  both = jax.tree.map(jnp.add, *sides)
  assert norm(difference(both, whole["embedder"])) < 1e-4 * size


def test_a_retriever_of_learning_rate_0_stays():
  state, _, _, params = run_step("pretrain")
  gradients = difference(params, state.params)
  assert norm(gradients["embedder"]) > 0 and norm(gradients["encoder"]) > 0
  tx = optimizer.bert_adam(0.1, 0, 10, lr_scales={"embedder": 0.0}, **BERT)
  state = TrainState.create(params, tx)
  update = jax.jit(TrainState.apply_gradients, static_argnums=2)
  state = update(state, gradients, tx)
  assert norm(difference(state.params["embedder"], params["embedder"])) == 0
  assert norm(difference(state.params["encoder"], params["encoder"])) > 0
