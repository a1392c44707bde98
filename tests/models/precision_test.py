"""bfloat16 beside float32: what is computed in which, and how far they differ."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.models import objective, precision, unpadded
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.types import Inputs
from tests import tiny_realm as tiny

R, T, M = 5, 9, 2
SIZES = dataclasses.replace(
  tiny.SIZES, num_hidden_layers=1, hidden_dropout_prob=0.2
)
BF16 = dataclasses.replace(SIZES, compute_dtype="bfloat16")


@functools.cache
def batch():
  rng = np.random.default_rng(0)
  lens = rng.integers(5, T + 1, R)[:, None]
  ids = rng.integers(5, SIZES.vocab_size, (R, T))
  masks = np.sort(rng.permuted(np.tile(np.arange(4), (R, 1)), axis=1)[:, :M])
  mask = (np.arange(T) < lens).astype(np.int32)
  return Inputs(ids, mask, np.zeros_like(mask)), masks, ids[:, :M]


def loss(sizes, params, rng=None):
  """Of an embedder and an encoder, as a step has them."""
  inputs, masks, targets = batch()
  given = {
    "deterministic": rng is None,
    "rngs": None if rng is None else {"dropout": rng},
  }
  layout = unpadded.lay_out(inputs.attention_mask, 0.95)
  emb = (
    RealmEmbedder(sizes)
    .apply(
      {"params": params["embedder"]}, inputs.input_ids,
      attention_mask=inputs.attention_mask, layout=layout, **given,
    )
    .projected_score
  )  # fmt: skip
  encoder = RealmKnowledgeAugEncoder(sizes)
  logits = encoder.apply(
    {"params": params["encoder"]}, inputs, masks, method=encoder.mlm_logits
  )
  score = objective.candidate_log_probs(emb @ emb.T)
  gold = objective.gold_log_probs(logits[:, None], targets)
  return -(jnp.diagonal(score).mean() + gold.mean())


@functools.cache
def params():
  return tiny.params(SIZES, SIZES)


@functools.cache
def outcome(sizes):
  run = jax.jit(jax.value_and_grad(functools.partial(loss, sizes)))
  return run({k: params()[k] for k in ("embedder", "encoder")})


def test_bfloat16_is_close_and_gradients_are_float32():
  want, want_grads = outcome(SIZES)
  got, grads = outcome(BF16)
  assert got.dtype == jnp.float32 and got != want
  np.testing.assert_allclose(got, want, rtol=0.02)
  flat = [
    np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)])
    for g in (want_grads, grads)
  ]
  assert {x.dtype for x in jax.tree.leaves(grads)} == {np.dtype("float32")}
  error = np.linalg.norm(flat[1] - flat[0]) / np.linalg.norm(flat[0])
  assert 1e-4 < error < 0.05


def operations(jaxpr):
  """All operations of a program and of those that it calls."""
  for eqn in jaxpr.eqns:
    yield eqn
    for value in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
    ):
      called = getattr(value, "jaxpr", value)
      if hasattr(called, "eqns"):
        yield from operations(called)


def traced(sizes, rng=None):
  gradient = jax.grad(functools.partial(loss, sizes))
  chosen = {k: params()[k] for k in ("embedder", "encoder")}
  return list(operations(jax.make_jaxpr(gradient)(chosen, rng).jaxpr))


def test_what_is_computed_in_which(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  found = traced(BF16)
  grads = {k: params()[k] for k in ("embedder", "encoder")}
  sizes = [x.shape for x in jax.tree.leaves(grads)]
  by_name = {}
  for eqn in found:
    types = {v.aval.dtype.name for v in eqn.invars if hasattr(v, "aval")}
    by_name.setdefault(eqn.primitive.name, []).append(types)
  products = by_name["dot_general"]
  narrow = [types for types in products if types == {"bfloat16"}]
  # all but the 5 x 5 scores and their two gradients
  assert len(products) - len(narrow) <= 3 and len(narrow) > 30
  for name in ("exp", "rsqrt", "log"):  # softmax, norms, losses
    assert set().union(*by_name[name]) == {"float32"}, name
  # the gradient of every matrix but the tables' is summed in float32
  kernels = [shape for shape in sizes if len(shape) > 1]
  wide = [
    eqn.outvars[0].aval.shape
    for eqn in found
    if eqn.primitive.name == "dot_general"
    and eqn.outvars[0].aval.dtype == jnp.float32
    and eqn.invars[0].aval.dtype == jnp.bfloat16
  ]
  assert len(wide) >= len(kernels) - 6  # three tables a model
  # nothing is added up in bfloat16 over rows
  for eqn in found:
    if eqn.primitive.name in ("reduce_sum", "scatter-add", "add_any"):
      shape = eqn.outvars[0].aval.shape
      wide_enough = eqn.outvars[0].aval.dtype == jnp.float32
      assert shape not in sizes or wide_enough, eqn


def test_affine_of_any_shape():
  rng = np.random.default_rng(1)
  x, kernel, bias = (
    rng.standard_normal(shape).astype(np.float32)
    for shape in ((2, 3, 4), (4, 5, 6), (5, 6))
  )
  want = np.einsum("rtd,dce->rtce", x, kernel) + bias
  np.testing.assert_allclose(precision.affine(x, kernel, bias), want, rtol=1e-5)
  weights = rng.standard_normal(want.shape).astype(np.float32)

  def total(x, kernel, bias, dtype):
    y = precision.affine(x.astype(dtype), kernel, bias, jnp.float32)
    return (y * weights).sum()

  wide, narrow = (
    jax.grad(total, (0, 1, 2))(x, kernel, bias, dtype)
    for dtype in (jnp.float32, jnp.bfloat16)
  )
  for a, b in zip(wide, narrow, strict=True):
    assert b.dtype == jnp.float32
    np.testing.assert_allclose(b, a, atol=0.02 * np.abs(a).max())


def dots(sizes):
  return sum(e.primitive.name == "dot_general" for e in traced(sizes))


def test_what_the_backward_pass_computes_again():
  kept, some, all_of_it = (
    dots(dataclasses.replace(SIZES, remat=remat))
    for remat in ("none", "dots", "full")
  )
  # of each of two layers: scores and mixed; with weights: q, kv, out, two more
  assert some - kept == 2 * 2
  assert all_of_it - some == 2 * 5


@pytest.mark.nightly
@pytest.mark.parametrize("remat", ["full", "dots"])
def test_remat_gives_the_same_with_dropout_too(remat):
  chosen = {"embedder": params()["embedder"], "encoder": params()["encoder"]}
  results = [
    jax.jit(jax.grad(functools.partial(loss, sizes)))(chosen, jax.random.key(3))
    for sizes in (SIZES, dataclasses.replace(SIZES, remat=remat))
  ]
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
    *results,
  )
