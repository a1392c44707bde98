"""The kernel for Hopper GPUs, without one, and the search that trusts it."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

from realm_jax import backend
from realm_jax.plan import cost, flops
from realm_jax.retrieval import hopper, mips, scan, selection, vectors
from tests.retrieval.mips_test import check, integers

P = hopper.SIZE
BFLOAT16 = jnp.bfloat16
BUCKET_MAXIMA = hopper.bucket_maxima


def normal(n, b, seed=0):
  rng = np.random.default_rng(seed)
  rows = rng.standard_normal((n, P), np.float32).astype(BFLOAT16)
  return rows, rng.standard_normal((b, P), np.float32)


def slow_maxima(rows, queries):
  """As hopper.bucket_maxima."""
  rows = jnp.asarray(rows, jnp.float32)
  scores = jnp.einsum(
    "NP,BP->NB", rows, queries.astype(jnp.float32), precision="highest"
  )
  scores = jnp.pad(scores, ((0, -len(rows) % hopper.BUCKET), (0, 0)))
  maxima = scores.reshape(-1, hopper.BUCKET, queries.shape[0]).max(1)
  return maxima, jnp.linalg.norm(rows, axis=1).max()


@pytest.mark.skipif(
  not hasattr(plgpu, "InterpretGPUParams"),
  reason="this JAX has no interpreter of GPU kernels (0.11 has)",
)
@pytest.mark.parametrize("n, b, cores", [(1000, 130, 3), (1152, 7, 2)])
def test_the_kernel_interpreted(n, b, cores):
  rows, queries = normal(n, b)
  rows[n // 3] *= 9
  queries = queries.astype(BFLOAT16)
  found = hopper.bucket_maxima(
    jnp.asarray(rows),
    jnp.asarray(queries),
    cores=cores,
    interpret=plgpu.InterpretGPUParams(),
  )
  for got, want in zip(found, slow_maxima(rows, queries), strict=True):
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)


def lowered(program, n, b):
  """A program of rows and queries, for a Hopper GPU."""
  device = jax.sharding.AbstractDevice("NVIDIA H200", 132, "gpu")
  mesh = jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)
  rows = jax.ShapeDtypeStruct((n, P), BFLOAT16)
  queries = jax.ShapeDtypeStruct((b, P), jnp.float32)
  with jax.sharding.use_abstract_mesh(mesh):
    traced = jax.jit(program).trace(rows, queries)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


def maxima_of_h200(rows, queries):
  return BUCKET_MAXIMA(rows, queries.astype(BFLOAT16), cores=132)


@pytest.mark.parametrize("b", [1, 64, 300, hopper.QUERIES])
def test_the_kernel_is_made_for_the_whole_wikipedia(b):
  assert "wgmma" in lowered(maxima_of_h200, 13_353_720, b)


def test_a_step_that_searches_is_differentiated(monkeypatch):
  monkeypatch.setattr(hopper, "takes", lambda rows: True)
  monkeypatch.setattr(hopper, "bucket_maxima", maxima_of_h200)

  def loss(rows, queries):
    fixed = jax.lax.stop_gradient(queries)
    _, ids = mips.top_k(rows, fixed, 5)
    return (rows[ids].astype(jnp.float32) * queries[:, None]).sum()

  gradient = jax.grad(loss, argnums=1)
  assert "wgmma" in lowered(gradient, 80_000, 12)


def test_what_the_kernel_does_is_counted():
  rows = jax.ShapeDtypeStruct((8000, P), BFLOAT16)
  queries = jax.ShapeDtypeStruct((130, P), BFLOAT16)
  program = lambda *a: hopper.bucket_maxima(*a, cores=4)  # noqa: E731
  want = 2 * 8000 * P * 256  # whole parts of queries
  assert cost.count(program, rows, queries).flops == want
  traced = jax.jit(program).trace(rows, queries)
  assert flops.count(traced.jaxpr, hopper.SCOPE) == (want, want)


def test_rows_that_the_kernel_takes(monkeypatch):
  def array(n, p=P, dtype=BFLOAT16):
    return jax.ShapeDtypeStruct((n, p), dtype)

  assert not hopper.takes(array(2**16))  # there is none on a CPU
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  device = types.SimpleNamespace(compute_capability="9.0")
  monkeypatch.setattr(jax, "local_devices", lambda: [device])
  assert hopper.takes(array(2**16))
  assert not hopper.takes(array(2**16 + 4))
  assert not hopper.takes(array(2**15))
  assert not hopper.takes(array(2**16, 64))
  assert not hopper.takes(array(2**16, dtype=jnp.float32))
  assert not hopper.takes(vectors.Quantized(array(2**16), array(2**16)))
  with backend.planned("tpu"):
    assert not hopper.takes(array(2**16))
  device.compute_capability = "10.0"
  assert not hopper.takes(array(2**16))


@pytest.mark.parametrize(
  "w, b, k", [(100, 3, 5), (4096, 2, 3), (9000, 4, 7), (200_001, 3, 24)]
)
def test_places_by_groups(w, b, k):
  values = np.random.default_rng(w).integers(0, 50, (w, b)).astype(np.float32)
  got = selection.places_by_groups(jnp.asarray(values), k)
  want = np.sort(np.argsort(-values, axis=0, kind="stable")[:k], axis=0)
  np.testing.assert_array_equal(got, want)


def never():
  return jnp.full((5, 6), jnp.nan), jnp.full((5, 6), -7)


def by_rounded(rows, queries, k, n, otherwise=never):
  run = jax.jit(
    lambda r, q: scan.by_rounded(r, q, k, n, slow_maxima, otherwise)
  )
  return run(rows, queries)


@pytest.mark.parametrize("num_valid", [20_004, 20_000, 19_968, 900, 7, 3])
def test_exact_with_ties(num_valid):
  """Duplicates in far places, padding that would win, fewer rows than k."""
  half, queries = integers(10_002, 5, P, num_valid, 2)
  rows = np.tile(half, (2, 1))
  padded = rows.copy()
  padded[num_valid:] = 100 * np.sign(queries.sum(0))
  found = by_rounded(padded.astype(BFLOAT16), queries, 6, num_valid)
  check(found, rows[:num_valid], queries, 6)


def test_what_rounding_hides_is_searched_anew():
  """The best row seems worse than one in each of many other buckets."""
  queries = np.zeros((5, P), np.float32)
  queries[:, :3] = 1 + 2**-9, 1, 1  # the first is rounded to 1
  rows = np.zeros((20_000, P), np.float32)
  rows[:: hopper.BUCKET, 1:3] = 256, 0.25
  rows[777, 0] = 256
  found = by_rounded(rows.astype(BFLOAT16), queries, 6, len(rows))
  assert (np.asarray(found[1]) == -7).all()
  assert (np.argmax(queries @ rows.T, axis=1) == 777).all()


def test_the_bound_of_what_is_hidden():
  """No score of a bucket left out is above what `by_rounded` allows it."""
  rows, queries = normal(6400, 40, 3)
  rounded = queries.astype(BFLOAT16).astype(np.float32)
  floats = rows.astype(np.float32)
  apart = np.abs((queries - rounded) @ floats.T).max(1)
  bound = np.linalg.norm(queries - rounded, axis=1)
  bound *= np.linalg.norm(floats, axis=1).max()
  assert (apart <= bound).all() and (apart > bound / 20).all()


def test_top_k_takes_the_kernel_in_tiles(monkeypatch):
  made, b = [], 17

  def maxima(rows, queries):
    made.append(queries.shape)
    return slow_maxima(rows, queries)

  monkeypatch.setattr(hopper, "takes", lambda rows: True)
  monkeypatch.setattr(hopper, "QUERIES", 8)
  monkeypatch.setattr(hopper, "bucket_maxima", maxima)
  rows, queries = integers(3000, b, P, b, 3)
  find = jax.jit(lambda x, q: mips.top_k(x, q, 7, num_blocks=2990))
  check(find(rows.astype(BFLOAT16), queries), rows[:2990], queries, 7)
  assert made == [(8, P)]
  jax.eval_shape(lambda x, q: mips.top_k(x, q, 129), rows, queries)
  assert len(made) == 1  # its list would be too long
