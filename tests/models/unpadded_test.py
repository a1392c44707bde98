"""Packed tokens beside padded ones: the same numbers, and what is cut."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.config import RealmConfig
from realm_jax.models import bert, unpadded

R, T, D = 6, 7, 5
LENS = np.array([7, 1, 4, 0, 6, 3])
MASK = (np.arange(T) < LENS[:, None]).astype(np.int32)


def test_tokens_are_packed_in_order_and_laid_out_again():
  x = np.random.default_rng(0).standard_normal((R, T, D))
  layout = unpadded.lay_out(MASK, 0.6)  # room for 26 tokens, and there are 21
  packed = np.asarray(layout.pack(x))
  assert packed.shape == (1, 26, D)
  np.testing.assert_allclose(packed[0, :21], x[MASK > 0], rtol=1e-6)
  assert not packed[0, 21:].any()
  want = np.where(MASK[..., None], x, 0)
  np.testing.assert_allclose(layout.unpack(packed), want, rtol=1e-6)


def test_holes_in_a_mask():
  mask = np.random.default_rng(1).integers(0, 2, (R, T))
  layout = unpadded.lay_out(mask, 0.99)
  at = np.arange(R * T, dtype=np.float32).reshape(R, T)
  packed = np.asarray(layout.pack(at))[0]
  np.testing.assert_array_equal(packed[: mask.sum()], at[mask > 0])


@pytest.mark.parametrize(
  ("fill", "width"), [(0.5, 7), (0.47, 6), (0.4, 4), (0.12, 1), (0.01, 0)]
)
def test_the_longest_are_cut(fill, width):
  """21 tokens; columns hold 5, 4, 4, 3, 2, 2, 1 of them."""
  layout = unpadded.lay_out(MASK, fill)
  np.testing.assert_array_equal(layout.mask, MASK * (np.arange(T) < width))


def test_groups_have_runs_of_their_own():
  groups = MASK.reshape(3, 2, T)
  whole = unpadded.lay_out(MASK, 0.7, 3)
  x = np.random.default_rng(2).standard_normal((R, T, D))
  for g, mask in enumerate(groups):
    alone = unpadded.lay_out(mask, 0.7)
    np.testing.assert_array_equal(
      whole.pack(x)[g], alone.pack(x.reshape(3, 2, T, D)[g])[0]
    )


def test_room_for_all_needs_no_layout():
  assert unpadded.lay_out(MASK, 1.0) is None


def test_gradients_of_moving():
  rng = np.random.default_rng(3)
  layout = unpadded.lay_out(MASK, 0.55)
  x, g = rng.standard_normal((2, R, T, D)).astype(np.float32)
  move = lambda x: layout.unpack(jnp.sin(layout.pack(x)))  # noqa: E731
  _, back = jax.vjp(move, x)
  want = np.where(MASK[..., None], np.cos(x) * g, 0)
  np.testing.assert_allclose(back(g)[0], want, rtol=1e-5)


@functools.cache
def model():
  sizes = RealmConfig(
    vocab_size=31,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=9,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.5,
  )
  layers = bert.Bert(sizes)
  ids = np.random.default_rng(4).integers(0, 31, (R, T))
  inputs = bert.make_inputs(ids, MASK)
  return layers, inputs, layers.init(jax.random.key(0), inputs)


_PLACES = np.arange(R)[:, None] % [[3, 2]]


@pytest.mark.parametrize(
  ("num_groups", "read"),
  [
    (3, None),
    (1, _PLACES),
    pytest.param(1, None, marks=pytest.mark.nightly),
    pytest.param(3, _PLACES, marks=pytest.mark.nightly),
  ],
)
def test_bert_is_the_same_to_rounding(num_groups, read):
  layers, inputs, params = model()
  there = MASK if read is None else np.take_along_axis(MASK, read, axis=1)

  @jax.jit
  def outcome(params, layout):
    def total(params):
      x, _, _ = layers.apply(params, inputs, read_positions=read, layout=layout)
      x = x * there[..., None]
      return jnp.sin(x).sum(), x

    gradient, x = jax.grad(total, has_aux=True)(params)
    return x, gradient

  layout = unpadded.lay_out(MASK, 0.8, num_groups)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5)
  jax.tree.map(close, outcome(params, layout), outcome(params, None))
