"""What benchmarks/gpu.py measures: programs of the real size and toy ones."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import embed, sized, sizes, synthetic
from configs import pretrain
from realm_jax import backend
from realm_jax.config import RealmConfig
from realm_jax.data.packing import NUM_SPECIALS
from realm_jax.models import convert
from realm_jax.plan import cost
from realm_jax.retrieval import mips, refresh, scan
from realm_jax.train import run, step
from realm_jax.train.state import TrainState
from realm_jax.types import BlockTokens

BASE = sized.Sizes(
  B=8, K=8, Q=96, C=288, L=384, M=10, layers=12, hidden=768, block=230, query=60
)
TOY = sized.Sizes(
  B=2,
  K=3,
  Q=24,
  C=40,
  L=56,
  M=4,
  V=211,
  layers=1,
  hidden=96,
  block=32,
  query=16,
)
DTYPE = "bfloat16"
_COMPARED = 64  # queries
TIMES = 5  # steps that follow each other
_SHARE = 0.1  # of a step's FLOPs that refresh may take besides


class Search(NamedTuple):
  """Sizes of a search."""

  rows: int = sizes.WIKIPEDIA
  queries: int = 512
  dim: int = 128
  k: int = 8


class Line(NamedTuple):
  """A program, what it counts as done, and its cost; the peer's is ours.

  `says` is what it computed, if that can be compared. It runs so many times
  at a call.
  """

  run: Callable
  items: int
  cost: cost.Cost
  says: str = ""
  times: int = 1


def configs(s: sized.Sizes) -> dict[str, RealmConfig]:
  """Name -> model, by each attention that runs here."""
  names = {"ours": "xla"}
  if jax.default_backend() == "gpu":
    names["ours, cudnn"] = "cudnn"
  return {
    name: s.config(compute_dtype=DTYPE, attention=attention)
    for name, attention in names.items()
  }


def step_lines(s: sized.Sizes) -> dict[str, Line]:
  """The step of one device."""
  return {name: _step_line(s, config) for name, config in configs(s).items()}


def _step_line(s: sized.Sizes, config: RealmConfig) -> Line:
  realm = sized.make_realm(s, config)
  tx = run.make_optimizer(pretrain.get_config("base"))
  loss = functools.partial(sized.loss, realm)

  def one(state, given):
    value, grads = jax.value_and_grad(loss)(state.params, given)
    return state.apply_gradients(grads, tx), (value, optax.global_norm(grads))

  state = TrainState.create(_params(realm), tx)
  given = jax.device_put(sized.make_batch(s, seed=0))
  flops = cost.count(one, state, given).flops
  steps = _Steps(jax.jit(one, donate_argnums=0), (state,), (given,))
  says = "loss {:.5f}, gradient {:.5f}".format(*map(float, steps(times=1)))
  return Line(steps, s.B, cost.Cost(flops), says, TIMES)


class _Steps:
  """Steps that go on from their own state, a few at a call."""

  def __init__(self, step: Callable, state: tuple, given: tuple):
    self._step, self._state, self._given = step, state, given

  def __call__(self, number: int = 0, times: int = TIMES):
    del number  # of the round
    for _ in range(times):
      *self._state, result = self._step(*self._state, *self._given)
    return jax.block_until_ready(result)


def _params(realm) -> dict:
  """Random ones: to compile their initialisation would take longer."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(0.02 * rng.standard_normal(x.shape, np.float32)),
    jax.eval_shape(lambda: sized.init_params(realm)),
  )


def refresh_lines(s: sized.Sizes, num_blocks: int) -> dict[str, Line]:
  """The training step over so many blocks, without refresh and with it."""
  config = list(configs(s).values())[-1]
  realm = sized.make_realm(s, config)
  tx = run.make_optimizer(pretrain.get_config("base"))
  shapes = jax.eval_shape(lambda: sized.init_params(realm))
  embedder = refresh.BlockEmbedder(realm.retrieval, 1)
  row = jax.ShapeDtypeStruct((1, config.retriever_proj_size), jnp.bfloat16)
  params = shapes["embedder"]
  block = cost.count(
    embedder.embed_slice, params, _tokens(s, 1), row, np.int32(0)
  )
  plain = _refresh_line(s, config, tx, num_blocks, 0)
  size = max(round(_SHARE * plain.cost.flops / block.flops), 1)
  return {
    "no refresh": plain,
    f"{_SHARE:.0%} refresh": _refresh_line(s, config, tx, num_blocks, size),
  }


def _refresh_line(s, config, tx, num_blocks, size) -> Line:
  """A step that embeds `size` blocks besides."""
  rows = refresh.padded_rows(num_blocks, 8, max(size, 1))
  realm = sized.make_realm(s, config)
  realm = dataclasses.replace(
    realm, retrieval=dataclasses.replace(realm.retrieval, num_blocks=num_blocks)
  )
  embedder = refresh.BlockEmbedder(realm.retrieval, size)
  params = _params(realm)
  rows_emb = jax.random.normal(
    jax.random.key(0), (rows, config.retriever_proj_size), jnp.bfloat16
  )
  index = refresh.Index(rows_emb, jnp.int32(0), jnp.int32(0))
  if size:
    index = index.replace(
      shadow=embedder.empty(rows, jnp.bfloat16),
      shadow_params=jax.tree.map(jnp.copy, params["embedder"]),
      shadow_step=jnp.int32(0),
    )
  tokens = jax.jit(_tokens, static_argnums=(0, 1))(s, rows)
  batch = jax.device_put(sized.make_batch(s, seed=0).batch)
  state = TrainState.create(params, tx)
  once = step.make_pretrain_step(realm, tx, 0, embedder, int(size > 0))
  flops = cost.count(once, state, index, batch, tokens).flops
  steps = _Steps(step.JitStep(once, tokens), (state, index), (batch,))
  says = f"{num_blocks} blocks"
  if size:
    says = f"{size} blocks a step, a version in {rows // size} steps"
  return Line(steps, s.B, cost.Cost(flops), says, TIMES)


def _tokens(s: sized.Sizes, rows: int) -> BlockTokens:
  """Blocks that fill their places, of words that follow each other."""
  places = s.C - NUM_SPECIALS
  words = jnp.arange(rows * places, dtype=jnp.uint32).reshape(rows, places)
  full = jnp.full((rows,), places, jnp.int32)
  return BlockTokens((words % s.V).astype(jnp.uint16), full // 50, full)


def embed_lines(
  s: sized.Sizes, blocks: int, batches: tuple[int, ...]
) -> dict[str, Line]:
  """Embedding of blocks that fill their places, so many at a time."""
  words = s.C * 4  # far more than fit
  rng = np.random.default_rng(0)
  tokens = synthetic.block_tokens(rng, (blocks,), s.C, s.V, words)
  made = {}
  for name, config in configs(s).items():
    buckets = embed.make_buckets(config, s.C, synthetic.SPECIALS)
    embedder = buckets.retrieval.embedder
    params = jax.jit(functools.partial(convert.fresh_params, embedder))(
      jax.random.key(0)
    )
    for size in batches:
      way = dataclasses.replace(buckets, batch_size=size)
      flops = embed.flops(way, params, tokens.lens)
      run_it = functools.partial(_embed, way, params, tokens)
      made[f"{name}, {size} at a time"] = Line(run_it, blocks, cost.Cost(flops))
  return made


def _embed(way, params, tokens, _):
  return way.embed(params, tokens)


def search_lines(s: Search) -> dict[str, Line]:
  """Exact search; some of its ids are compared with those by plain XLA."""
  make = functools.partial(jax.random.normal, dtype=jnp.bfloat16)
  rows = make(jax.random.key(0), (-(-s.rows // 8) * 8, s.dim))  # as an index's
  queries = jax.random.normal(jax.random.key(1), (s.queries, s.dim))
  find = jax.jit(
    lambda rows, queries: mips.top_k(rows, queries, s.k, num_blocks=s.rows)
  )
  counted = cost.Cost(2 * s.rows * s.queries * s.dim, rows.nbytes)
  few = queries[:_COMPARED]
  plan = mips.plan_of_buckets(len(rows), len(few), s.k, backend.name())
  by_xla = jax.jit(
    lambda rows, few: scan.by_buckets(rows, few, s.k, s.rows, plan, False)
  )
  same = (find(rows, queries)[1][:_COMPARED] == by_xla(rows, few)[1]).all(1)
  return {
    "ours": Line(
      lambda _: jax.block_until_ready(find(rows, queries)),
      s.queries,
      counted,
      f"XLA's ids for {int(same.sum())} of {len(same)} queries",
    )
  }
