"""The real steps on meshes of every kind: equal to one device's, and what their
programs send between devices."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

from realm_jax import sharding
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.reader import RealmReader
from realm_jax.plan import collectives
from realm_jax.retrieval.open_qa import OpenQa
from realm_jax.retrieval.realm import Realm
from realm_jax.retrieval.refresh import BlockEmbedder, Index
from realm_jax.retrieval.retrieve import ALL, Fill, Retrieval
from realm_jax.train import optimizer, step
from realm_jax.train.state import TrainState
from tests import tiny_realm as tiny

# What a tensor axis of 2 divides.
SIZES = dataclasses.replace(
  tiny.SIZES, num_hidden_layers=1, num_attention_heads=6, vocab_size=54
)
B1 = 0.25  # a first moment after one step: three quarters of the gradient
TX = optimizer.bert_adam(
  0.01, 0, 10, b1=B1, b2=0.9, eps=1e-3, weight_decay=0.1, clip_norm=1e6
)
# Sums are split over devices and parts, so float32 rounds elsewhere: of a
# tensor's largest gradient; of the figures.
TOLERANCE, OF_FIGURES = 1e-4, 1e-5
N, ROWS = 8 * 640 - 3, 8 * 640  # an array of them is larger than anything else
ONE, MIXED = (1, 1, 1), (2, 2, 2)
PARTS = {
  "pretrain": ("embedder", "encoder"),
  "finetune": ("embedder", "reader"),
}


def make_step(kind, mesh, microbatches):
  """With the index slice of an interleaved refresh; finetune spares padding."""
  fill = ALL if kind == "pretrain" else Fill(*[0.999] * 4)
  retrieval = Retrieval(
    RealmEmbedder(SIZES), tiny.SPECIALS, N, 0.3, mesh, fill=fill
  )
  embedder = BlockEmbedder(retrieval, tiny.SLICE, mesh.size)
  if kind == "pretrain":
    encoder = RealmKnowledgeAugEncoder(SIZES)
    realm = Realm(retrieval, encoder, tiny.K, tiny.L)
    return step.make_pretrain_step(realm, TX, 0, embedder, 1, microbatches)
  open_qa = OpenQa(retrieval, RealmReader(SIZES), tiny.L, embed_found=True)
  return step.make_finetune_step(
    open_qa, TX, 0, tiny.BEAM, embedder, 1, microbatches
  )


def arguments(kind, mesh):
  all_params = tiny.params(SIZES, SIZES)
  state = TrainState.create({p: all_params[p] for p in PARTS[kind]}, TX)
  state = sharding.shard_state(state, mesh)
  tokens = tiny.blocks(N, ROWS)
  batch = tiny.pretrain_batch()
  if kind == "finetune":
    batch = tiny.qa_batch(tokens)
  shape = (ROWS, SIZES.retriever_proj_size)
  rows = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
  scalar = sharding.replicate(np.int32(0), mesh)
  index = Index(
    block_emb=sharding.shard_rows(rows, mesh),
    version=scalar,
    params_step=scalar,
    shadow=sharding.shard_rows(0 * rows, mesh),
    shadow_params=state.params["embedder"],
    shadow_step=scalar,
  )
  tokens = jax.tree.map(lambda x: sharding.shard_rows(x, mesh), tokens)
  return state, index, sharding.shard_whole_batch(batch, mesh), tokens


@functools.cache
def compiled(kind, sizes, microbatches=1):
  mesh = sharding.make_mesh(*sizes)
  args = arguments(kind, mesh)
  made = make_step(kind, mesh, microbatches)
  places = jax.tree.map(lambda x: x.sharding, args[0])
  run = jax.jit(made, out_shardings=(places, None, None))  # nothing donated
  return run.lower(*args).compile()


@functools.cache
def outcome(kind, sizes, microbatches=1):
  """Path -> gradient, the metrics, and the slice that was embedded."""
  args = arguments(kind, sharding.make_mesh(*sizes))
  state, index, metrics = compiled(kind, sizes, microbatches)(*args)
  moments = sharding.fetch(state.opt_state)
  gradients = {
    re.sub(r".*/mu/", "", _name(path)): np.asarray(x) / (1 - B1)
    for path, x in jax.tree_util.tree_leaves_with_path(moments)
    if "/mu/" in _name(path)
  }
  return gradients, sharding.fetch(metrics), sharding.fetch(index.shadow)


def _name(path):
  return jax.tree_util.keystr(path, simple=True, separator="/")


def slow(kind, sizes, microbatches):
  return pytest.param(kind, sizes, microbatches, marks=pytest.mark.nightly)


@pytest.mark.parametrize(
  ("kind", "sizes", "microbatches"),
  [
    ("pretrain", MIXED, 2),
    slow("pretrain", ONE, 4),
    slow("pretrain", (8, 1, 1), 1),
    slow("pretrain", (1, 8, 1), 1),
    slow("pretrain", (1, 1, 2), 1),
    slow("pretrain", MIXED, 1),
    slow("finetune", MIXED, 1),
    slow("finetune", (2, 2, 1), 2),
    slow("finetune", ONE, 2),
  ],
)
def test_every_mesh_and_number_of_parts_computes_the_same(
  kind, sizes, microbatches
):
  want, figures, shadow = outcome(kind, ONE)
  got, found, filled = outcome(kind, sizes, microbatches)
  assert len(want) > 30 and want.keys() == got.keys()
  for name, gradient in want.items():
    size = np.abs(gradient).max()
    np.testing.assert_allclose(
      got[name], gradient, atol=TOLERANCE * size + 1e-6, err_msg=name
    )
  for name, value in figures.items():
    if name != "padding":  # of runs of other lengths
      np.testing.assert_allclose(
        found[name], value, rtol=OF_FIGURES, atol=1e-6, err_msg=name
      )
  rows = shadow.any(1)
  assert rows.sum() == tiny.SLICE and filled.any()
  np.testing.assert_allclose(filled[rows], shadow[rows], rtol=1e-4, atol=1e-5)


def test_state_stays_where_it_was():
  """Or the next step would be another program."""
  program = compiled("pretrain", MIXED, 2)
  state = program.input_shardings[0][0]
  new = program.output_shardings[0]
  for (path, old), now in zip(
    jax.tree_util.tree_leaves_with_path(state),
    jax.tree.leaves(new),
    strict=True,
  ):
    assert old == now, path
  split = [s for s in jax.tree.leaves(state) if any(s.spec)]
  assert len(split) == 3 * 17  # matrices, and both of their moments


def test_what_crosses_the_mesh():
  """Weights and short lists: no scores, no index, no moments."""
  program = compiled("pretrain", MIXED, 2)
  passed = collectives.collectives(program.as_text())
  assert {c.kind for c in passed} >= {"all-gather", "all-reduce"}
  state = arguments("pretrain", sharding.make_mesh(*ONE))[0]
  matrices = [x.size for x in jax.tree.leaves(state.params) if x.ndim > 1]
  found = tiny.B * tiny.K * tiny.C  # the candidates' tokens
  states = tiny.K * tiny.L * SIZES.hidden_size  # a device has one query
  most = max(*matrices, found, states)
  assert max(max(c.sizes) for c in passed) <= most < ROWS
  # the tokens of half a batch's candidates, with their lengths in whole words
  words = tiny.B // 2 * tiny.K * (tiny.C - 1) // 2
  assert [c.kind for c in passed if c.sizes == (words,)] == ["all-reduce"]
  gathered = [max(c.sizes) for c in passed if c.kind == "all-gather"]
  wide = [size for size in gathered if size in matrices]
  # each matrix for the step, and the embedder's for the slice
  embedder = jax.tree.leaves(state.params["embedder"])
  uses = sum(matrices) + sum(x.size for x in embedder if x.ndim > 1)
  assert sum(matrices) / 4 < sum(wide) <= uses
