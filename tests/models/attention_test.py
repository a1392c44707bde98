"""Attention by every backend: beside NumPy, in a model, and what is refused.

On a CPU jax.nn.dot_product_attention's own "xla", which takes the same
arguments, stands for cuDNN; cuDNN itself is traced and lowered, not run.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax import backend
from realm_jax.config import InputError, RealmConfig
from realm_jax.models import attention, bert, unpadded
from realm_jax.models.attention import Seen
from realm_jax.models.dropout import Dropout
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.plan import cost, flops
from tests import tiny_realm as tiny

R, T, H, S = 5, 7, 3, 8  # S: of a head
LENS = np.array([7, 1, 4, 6, 3], np.int32)
MASK = (np.arange(T) < LENS[:, None]).astype(np.int32)
SIZES = RealmConfig(
  vocab_size=31,
  hidden_size=12,
  num_hidden_layers=1,
  num_attention_heads=3,
  intermediate_size=20,
  max_position_embeddings=9,
  hidden_dropout_prob=0.0,
  attention_probs_dropout_prob=0.0,
  initializer_range=0.5,
)
KEPT = Dropout(0.0).bind({})
called = []


def stand_in(q, k, v, lengths):
  called.append(q.shape)
  return jax.nn.dot_product_attention(
    q,
    k,
    v,
    query_seq_lengths=lengths,
    key_value_seq_lengths=lengths,
    implementation="xla",
  )


STAND_IN = f"{__name__}:stand_in"
FAST = dataclasses.replace(SIZES, attention=STAND_IN)


@pytest.fixture(autouse=True)
def none_called():
  called.clear()


def qkv(dtype=np.float32):
  return np.random.default_rng(0).standard_normal((3, R, T, H, S), dtype)


def seen(config, mask, gapless=True):
  return attention.seen(config, mask, gapless, jnp.float32)


def by_hand(q, k, v, mask):
  """[R, T, H, S], mask [R, T] -> contexts, one query at a time."""
  out = np.zeros_like(q)
  for r, t, h in np.ndindex(R, T, H):
    keys = np.flatnonzero(mask[r])
    scores = np.array([q[r, t, h] @ k[r, j, h] for j in keys]) / np.sqrt(S)
    weights = np.exp(scores - scores.max())
    out[r, t, h] = weights / weights.sum() @ v[r, keys, h]
  return out


@pytest.mark.parametrize("name", ["xla", STAND_IN])
def test_beside_numpy(name):
  config = dataclasses.replace(SIZES, attention=name)
  to = seen(config, MASK)
  got, weights = attention.attend(name, *qkv(), to, KEPT)
  there = MASK[..., None, None] > 0
  want = by_hand(*qkv(), MASK)
  np.testing.assert_allclose(
    np.where(there, got, 0), np.where(there, want, 0), rtol=1e-4, atol=1e-5
  )
  assert np.isfinite(got).all()  # on padding too
  assert (weights is None) == (name == STAND_IN)
  if weights is not None:
    assert weights.shape == (R, H, T, T)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert not (weights * (1 - MASK[:, None, None])).any()


def test_a_mask_with_gaps_and_one_for_each_query():
  mask = MASK.copy()
  mask[:, 0] = [0, 1, 1, 0, 0]
  to = seen(FAST, mask, gapless=False)
  got, _ = attention.attend(STAND_IN, *qkv(), to, KEPT)
  np.testing.assert_allclose(got, by_hand(*qkv(), mask), rtol=1e-4, atol=1e-5)
  square = np.broadcast_to(mask[:, None], (R, T, T))
  same, _ = attention.attend(
    STAND_IN, *qkv(), seen(FAST, square, gapless=False), KEPT
  )
  np.testing.assert_array_equal(got, same)
  assert called == []


@functools.cache
def model():
  ids = np.random.default_rng(4).integers(0, 31, (R, T))
  inputs = bert.make_inputs(ids, MASK)
  layers, rng = bert.Bert(SIZES), np.random.default_rng(5)
  shapes = jax.eval_shape(lambda: layers.init(jax.random.key(0), inputs))
  return inputs, jax.tree.map(
    lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes
  )


def test_a_model_learns_the_same_by_a_fast_one():
  inputs, params = model()

  @functools.partial(jax.jit, static_argnums=0)
  def outcome(config, params):
    def total(params):
      x, _, _ = bert.Bert(config).apply(
        params, inputs, layout=unpadded.lay_out(MASK, 0.8), gapless=True
      )
      x = jnp.where(MASK[..., None] > 0, x, 0)
      return jnp.sin(x).sum(), x

    return jax.grad(total, has_aux=True)(params)

  want = outcome(SIZES, params)
  assert called == []
  got = outcome(FAST, params)
  assert called == [(R, T, 3, 4)]
  close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-5)
  jax.tree.map(close, got, want)


def test_few_positions_are_xlas():
  """In the last of two layers; also where they are as many as the sequence has."""
  config = dataclasses.replace(FAST, num_hidden_layers=2)
  inputs, _ = model()
  layers = bert.Bert(config)
  params = jax.eval_shape(lambda: layers.init(jax.random.key(0), inputs))
  for read in (None, np.zeros((R, 2), int), np.zeros((R, T), int)):
    called.clear()
    _, _, weights = jax.eval_shape(
      lambda p, read=read: layers.apply(
        p, inputs, read_positions=read, gapless=True
      ),
      params,
    )
    assert [w is None for w in weights] == [True, read is None]
    assert len(called) == 1 + (read is None)


def test_who_says_that_sequences_have_no_gaps():
  params = {"embedder": None}

  def is_fast(use, **sizes):
    called.clear()
    config = dataclasses.replace(tiny.EMBEDDER, attention=STAND_IN, **sizes)
    params["embedder"] = jax.eval_shape(
      lambda: RealmEmbedder(config).init(jax.random.key(0), ids)
    )["params"]
    retrieval = dataclasses.replace(
      tiny.retrieval(), embedder=RealmEmbedder(config)
    )
    called.clear()
    jax.eval_shape(functools.partial(use, retrieval), params)
    return bool(called)

  query = tiny.pretrain_batch().query
  ids = query.input_ids
  mean = {"pooling": "mean"}  # reads all positions of its one layer
  embed_query = lambda r, p: r.embed_query(p, query)  # noqa: E731
  assert is_fast(embed_query, **mean)
  assert not is_fast(embed_query)  # [CLS] alone is read
  assert not is_fast(embed_query, **mean, query_mask_token=False)  # gaps
  embed_blocks = lambda r, p: r.embed_blocks(p, tiny.blocks())  # noqa: E731
  assert is_fast(embed_blocks, **mean, query_mask_token=False)

  def reference(retrieval, params, **more):
    out = retrieval.embedder.apply(
      {"params": params["embedder"]}, ids, query.attention_mask, **more
    )
    return out.attentions

  assert not is_fast(reference, **mean)
  weights = functools.partial(reference, gapless=True, output_attentions=True)
  assert not is_fast(weights, **mean)
  assert is_fast(functools.partial(reference, gapless=True), **mean)


def test_a_head_mask_is_xlas():
  head_mask = np.array([1.0, 0.0, 1.0])[:, None, None]
  got, weights = attention.attend(
    STAND_IN, *qkv(), seen(FAST, MASK), KEPT, head_mask
  )
  assert weights is not None and not np.asarray(got)[:, :, 1].any()


def test_what_is_refused():
  half = {"attention": "cudnn", "compute_dtype": "bfloat16"}
  for wrong, said in (
    ({"attention": "flash"}, "'flash': wanted one of xla, cudnn, module:f"),
    ({"attention": "cudnn"}, "float32: give compute_dtype=bfloat16"),
    ({**half, "hidden_size": 36}, "8, 16, ... or 128, not 12"),
    ({**half, "hidden_size": 3 * 136}, "not 136: change"),
  ):
    with pytest.raises(InputError, match=said):
      dataclasses.replace(SIZES, **wrong)
  cudnn = dataclasses.replace(SIZES, **half, hidden_size=3 * S)
  with pytest.raises(InputError, match=r"=cudnn: runs on.* is a CPU: give"):
    attention.check_training(cudnn)
  with pytest.raises(InputError, match="is a CPU: give"):
    attention.attend("cudnn", *qkv(), seen(cudnn, MASK), KEPT)
  for name in ("no_such_module:f", f"{__name__}:no_such_function"):
    other = dataclasses.replace(SIZES, attention=name)
    with pytest.raises(InputError, match=f"{name}: cannot import it"):
      attention.check_training(other)


def test_dropout_is_refused_and_never_left_out():
  wet = dataclasses.replace(FAST, attention_probs_dropout_prob=0.1)
  with pytest.raises(
    InputError, match=r"config reader\.attention_probs_dropout_prob=0\.1: "
  ):
    attention.check_training(wet, "reader.")
  attention.check_training(FAST)
  attention.check_training(dataclasses.replace(wet, attention="xla"))
  inputs, params = model()

  def apply(**more):
    layers = bert.Bert(wet)
    return jax.eval_shape(
      lambda p: layers.apply(p, inputs, gapless=True, **more)[0], params
    )

  with pytest.raises(InputError, match="cannot drop attention weights"):
    apply(deterministic=False, rngs={"dropout": jax.random.key(0)})
  apply(deterministic=True)
  assert called == [(R, T, 3, 4)]


@pytest.fixture
def cudnn(monkeypatch):
  """Tracing for a GPU that is not here."""
  where = "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version"
  monkeypatch.setattr(where, lambda: 91_000)
  with backend.planned("gpu"):
    yield


@pytest.mark.parametrize("places", [T, T + 1])
def test_cudnn_takes_it_and_counts_as_much(cudnn, places):
  """JAX differentiates an even number of places: one is added to seven."""
  shape = jax.ShapeDtypeStruct((R, places, H, S), jnp.bfloat16)

  def gradients(lengths):
    def loss(q, k, v):
      to = Seen(jnp.zeros((R, 1, 1, places)), lengths)
      mixed, _ = attention.attend("cudnn", q, k, v, to, KEPT)
      assert mixed.shape == shape.shape
      return mixed.astype(jnp.float32).sum()

    return jax.jit(jax.value_and_grad(jax.checkpoint(loss), (0, 1, 2)))

  traced = gradients(LENS).trace(shape, shape, shape)
  text = traced.lower(lowering_platforms=("cuda",)).as_text()
  assert "__cudnn$fmhaSoftmaxBackward" in text and "PADDING" in text
  xla = gradients(None).trace(shape, shape, shape)
  for jaxpr, length in ((traced.jaxpr, T + 1), (xla.jaxpr, places)):
    assert flops.count(jaxpr)[0] == 6 * 2 * R * H * length**2 * S
  bytes_of = [
    cost.count(gradients(lengths), shape, shape, shape).bytes
    for lengths in (LENS, None)
  ]
  assert bytes_of[0] < bytes_of[1] or places % 2


def test_a_plan_of_what_is_not_here_is_xlas():
  cudnn = dataclasses.replace(
    SIZES, hidden_size=3 * S, attention="cudnn", compute_dtype="bfloat16"
  )
  with backend.planned("gpu"):
    attention.check_training(cudnn)
    assert seen(cudnn, MASK).lengths is None
  np.testing.assert_array_equal(seen(cudnn, MASK).lengths, LENS)
  np.testing.assert_array_equal(
    seen(cudnn, 0 * MASK).lengths,
    np.ones(R),  # nothing to divide by otherwise
  )
