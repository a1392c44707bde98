"""Index refresh: what is embedded when, with which params, and what is kept."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from realm_jax import sharding
from realm_jax.config import InputError
from realm_jax.retrieval import index as versions
from realm_jax.retrieval import journal, modes, refresh
from realm_jax.retrieval.contract import Contract
from realm_jax.train import checkpoint, step
from realm_jax.train.state import TrainState
from tests import tiny_realm as tiny

MANIFEST = {"tokenizer_hash": "t", "corpus_hash": "c", "template": "x"}
TX = optax.sgd(0.05)


def on_mesh(num_devices, slice_size=tiny.SLICE):
  """A mesh, the blocks' tokens on it, and their embedder."""
  mesh = sharding.make_mesh(num_devices)
  rows = refresh.padded_rows(tiny.N, num_devices, slice_size)
  blocks = tiny.blocks(num_rows=rows)
  tokens = jax.tree.map(lambda x: sharding.shard_rows(x, mesh), blocks)
  embedder = refresh.BlockEmbedder(
    tiny.retrieval(mesh), slice_size, num_devices
  )
  return mesh, tokens, embedder


def contract(**changes):
  """Of config.refresh."""
  fields = {"every_steps": 3, "max_staleness_steps": 0, "at_bound": "block",
            "block_seconds": 5.0, "poll_steps": 1, "replay": ""}  # fmt: skip
  return Contract(**fields | changes)


def start(workdir, mode, num_devices=1, slice_size=tiny.SLICE, **changes):
  """A refresher with the state and the jitted step of a training run."""
  mesh, tokens, embedder = on_mesh(num_devices, slice_size)
  refresher = modes.refresher_of(mode)(
    embedder,
    tokens,
    contract(**changes),
    workdir=workdir,
    manifest=MANIFEST,
    keep=2,
    probe=sharding.replicate(tiny.pretrain_batch(8).query, mesh),
  )
  train_step = step.make_pretrain_step(
    tiny.realm(mesh), TX, 0, embedder, refresher.slices_per_step
  )
  params = tiny.params_of("embedder", "encoder")
  state = sharding.replicate(TrainState.create(params, TX), mesh)
  batch = sharding.shard_batch(tiny.pretrain_batch(), mesh)
  run = step.JitStep(train_step, tokens)
  return refresher, state, lambda state, index: run(state, index, batch)


def train(refresher, state, run, num_steps):
  """The loop's order: refresh, then step. -> (index, step and swap metrics,
  embedder params before each step, indexes after each refresh)."""
  index = refresher.first(state.params)
  metrics, params, indexes = [], [], []
  for i in range(num_steps):
    params.append(jax.tree.map(np.array, state.params["embedder"]))
    index, swap = refresher(i, state, index)
    indexes.append(np.array(index.block_emb))
    state, index, of_step = run(state, index)
    metrics.append({**jax.tree.map(float, of_step), **swap})
  return index, metrics, params, indexes


def test_a_slice_is_what_each_block_alone_gives():
  _, tokens, embedder = on_mesh(1)
  params = tiny.params()["embedder"]
  done = []
  got = embedder.embed_all(params, tokens, on_slice=lambda *n: done.append(n))
  assert done == [(i + 1, 8) for i in range(8)]
  assert got.shape == (tiny.ROWS, tiny.SIZES.retriever_proj_size)
  alone = jax.jit(embedder.retrieval.embed_blocks)
  for i in range(tiny.ROWS):
    row = jax.tree.map(lambda x, i=i: x[i], tiny.blocks())
    want = alone({"embedder": params}, jax.tree.map(jnp.asarray, row))
    np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_devices", [2, 8])
def test_many_shards_embed_the_same(num_devices):
  params = tiny.params()["embedder"]
  _, tokens, embedder = on_mesh(1)
  want = embedder.embed_all(params, tokens)
  mesh, tokens, embedder = on_mesh(num_devices)
  assert embedder.num_slices(tiny.ROWS) == 8 // num_devices
  params = sharding.replicate(params, mesh)
  got = embedder.embed_all(params, tokens)
  assert got.sharding.is_equivalent_to(tokens.token_ids.sharding, 2)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_rows_are_padded_to_whole_slices():
  assert refresh.padded_rows(37, 8, 5) == 40
  assert refresh.padded_rows(41, 8, 5) == 80
  assert refresh.padded_rows(37, 1, 5) == 40


@pytest.mark.parametrize(
  "num_devices", [pytest.param(1, marks=pytest.mark.nightly), 2]
)
def test_interleaved(tmp_path, num_devices):
  """Every third step swaps in what the params of three steps ago embed."""
  refresher, state, run = start(tmp_path, "interleaved", num_devices)
  assert refresher.slices_per_step == {1: 3, 2: 2}[num_devices]  # of 8, of 4
  index, metrics, params, indexes = train(refresher, state, run, 8)
  assert index.params is None
  embed = refresher.embedder.embed_all
  for i, made_at in enumerate([0, 0, 0, 0, 0, 0, 3, 3]):
    want = embed(params[made_at], refresher.tokens)
    np.testing.assert_allclose(indexes[i], want, rtol=1e-4, atol=1e-4)
  assert np.abs(indexes[6] - indexes[0]).max() > 0.01
  version = [m["index_version"] for m in metrics]
  assert version == [0, 0, 0, 1, 1, 1, 2, 2]
  staleness = [m["index_staleness"] for m in metrics]
  assert staleness == [0, 1, 2, 3, 4, 5, 3, 4]
  assert [i for i, m in enumerate(metrics) if "swap_overlap" in m] == [3, 6]
  assert int(index.shadow_step) == 6
  for leaf, want in zip(
    jax.tree.leaves(index.shadow_params),
    jax.tree.leaves(params[6]),
    strict=True,
  ):
    np.testing.assert_array_equal(leaf, want)
  swaps = journal.read_swaps(tmp_path)
  named = [(s["step"], s["version"], s["params_step"]) for s in swaps]
  assert named == [(3, 1, 0), (6, 2, 3)]
  assert versions.list_versions(tmp_path) == [1, 2]  # keep = 2
  expect = {**MANIFEST, "params_step": 3, "shape": [tiny.N, 10]}
  expect["params_hash"] = versions.params_hash(params[3])
  block_emb, _ = versions.read_version(tmp_path, 2, expect)
  np.testing.assert_array_equal(block_emb, indexes[6][: tiny.N])


def test_inline(tmp_path):
  """Every third step trains on what its own params embed."""
  refresher, state, run = start(tmp_path, "inline")
  assert refresher.slices_per_step == 0
  index, metrics, params, indexes = train(refresher, state, run, 5)
  assert index.shadow is None
  for i, made_at in enumerate([0, 0, 0, 3, 3]):
    want = refresher.embedder.embed_all(params[made_at], refresher.tokens)
    np.testing.assert_allclose(indexes[i], want, rtol=1e-4, atol=1e-4)
  assert [m["index_version"] for m in metrics] == [0, 0, 0, 1, 1]
  assert [m["index_staleness"] for m in metrics] == [0, 1, 2, 0, 1]
  manifest = json.loads(
    (versions.version_path(tmp_path, 1) / "manifest.json").read_text()
  )
  assert (manifest["version"], manifest["params_step"]) == (1, 3)
  assert manifest["params_hash"] == versions.params_hash(params[3])
  assert [s["step"] for s in journal.read_swaps(tmp_path)] == [3]


def test_never(tmp_path):
  refresher, state, _ = start(tmp_path, "never")
  index = refresher.first(state.params, params_step=4)
  for i in range(7):
    same, metrics = refresher(i, state, index)
    assert same is index and metrics == {}
  assert versions.list_versions(tmp_path) == [0]
  assert journal.read_swaps(tmp_path) == []
  assert int(index.params_step) == 4


@pytest.mark.parametrize("mode", modes.MODES)
def test_a_shell_holds_what_a_checkpoint_has(tmp_path, mode):
  """Same tree, shapes and places as the first index, and nothing published."""
  refresher, state, _ = start(tmp_path, mode, num_devices=2)
  shell = refresher.shell(state.params)
  assert versions.list_versions(tmp_path) == []
  first = refresher.first(state.params)
  assert jax.tree.structure(shell) == jax.tree.structure(first)
  for got, want in zip(
    jax.tree.leaves(shell), jax.tree.leaves(first), strict=True
  ):
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    assert got.sharding.is_equivalent_to(want.sharding, got.ndim)


def test_an_index_goes_on_on_other_devices(tmp_path):
  """39 rows for the same blocks where there were 48, mid-way through a round."""
  refresher, state, _ = start(tmp_path, "interleaved", 8, slice_size=3)
  index = refresher.first(state.params)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(2, {"index": index})
  checkpoints.wait()
  before = jax.device_get(index)

  refresher, state, _ = start(tmp_path, "interleaved", 1, slice_size=3)
  num_rows = checkpoints.shapes(2)["index/block_emb"][0]
  assert (num_rows, refresher.tokens.lens.shape[0]) == (48, 39)
  shell = refresher.shell(state.params, num_rows)
  restored = checkpoints.restore(2, {"index": shell})[0]["index"]
  index = refresher.fit(restored)
  want = before.block_emb[: tiny.N]
  np.testing.assert_array_equal(index.block_emb[: tiny.N], want)
  assert index.block_emb.shape == index.shadow.shape == (39, 10)
  assert (
    index.block_emb.sharding == refresher.shell(state.params).block_emb.sharding
  )
  np.testing.assert_allclose(index.shadow[: tiny.N], want, rtol=1e-4, atol=1e-5)
  assert refresher.fit(index) is index


def test_overlap_is_the_share_of_ids_in_both(tmp_path):
  """Against NumPy: five best before and after, for each probe query."""
  refresher, state, _ = start(tmp_path, "inline")
  index = refresher.first(state.params)
  rng = np.random.default_rng(9)
  stale = np.array(index.block_emb)
  stale += 0.6 * rng.standard_normal(stale.shape)
  index = index.replace(block_emb=jnp.asarray(stale))
  index, metrics = refresher(3, state, index)
  retrieval = refresher.embedder.retrieval
  query_emb = jax.jit(retrieval.embed_query)(state.params, refresher.probe)
  best = [
    np.argsort(-np.asarray(query_emb) @ emb[: tiny.N].T, axis=1)[:, :5]
    for emb in (stale, np.asarray(index.block_emb))
  ]
  shared = [
    len({*a} & {*b}) for a, b in zip(*map(np.ndarray.tolist, best), strict=True)
  ]
  assert metrics["swap_overlap"] == pytest.approx(np.mean(shared) / 5)
  assert 0 < metrics["swap_overlap"] < 1
  assert metrics["refresh_blocks_per_second"] > 0
  assert journal.read_swaps(tmp_path)[0]["overlap"] == metrics["swap_overlap"]


@pytest.mark.parametrize(
  ("mode", "every_steps", "message"),
  [
    ("sometimes", 3, "refresh.mode='sometimes'"),
    ("inline", 0, "every_steps=0"),
  ],
)
def test_a_wrong_cadence_is_refused(tmp_path, mode, every_steps, message):
  with pytest.raises(InputError, match=message):
    start(tmp_path, mode, every_steps=every_steps)


@pytest.mark.parametrize("mode", ["never", "inline", "interleaved"])
def test_an_index_can_keep_the_params_that_made_it(mode, tmp_path):
  """Also of a resumed run: the shell has room for them."""
  mesh, tokens, embedder = on_mesh(1)
  refresher = modes.refresher_of(mode)(
    embedder, tokens, contract(), workdir=tmp_path, manifest=MANIFEST, keep=2,
    probe=sharding.replicate(tiny.pretrain_batch(8).query, mesh),
    keep_params=True,
  )  # fmt: skip

  def params(step):
    return jax.tree.map(lambda x: x + step, tiny.params_of("embedder"))

  def state(step):
    state = TrainState.create(params(step), optax.sgd(0.1))
    return sharding.replicate(state, mesh)

  index = refresher.first(state(0).params)
  made_at = []
  for i in range(8):
    index, _ = refresher(i, state(i), index)
    made_at.append(int(index.params_step))
    jax.tree.map(
      np.testing.assert_array_equal,
      index.params,
      params(made_at[-1])["embedder"],
    )
  assert (
    made_at
    == {
      "never": [0] * 8,
      "inline": [0, 0, 0, 3, 3, 3, 6, 6],
      "interleaved": [0, 0, 0, 0, 0, 0, 3, 3],
    }[mode]
  )
  shell = refresher.shell(state(0).params)
  assert jax.tree.structure(shell) == jax.tree.structure(index)
