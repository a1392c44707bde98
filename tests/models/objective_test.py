"""The objective against slow NumPy versions and the paper's gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.models import objective

B, K, M, V = 2, 3, 4, 7


@pytest.fixture
def case():
  rng = np.random.default_rng(0)
  return {
    "score": rng.normal(size=(B, K)).astype(np.float32),
    "logits": rng.normal(size=(B, K, M, V)).astype(np.float32),
    "targets": rng.integers(0, V, (B, M)),
    "mask": np.array([[1, 1, 0, 0], [1, 1, 1, 0]], np.float32),
  }


def softmax(x):
  e = np.exp(np.asarray(x, np.float64))
  return e / e.sum(-1, keepdims=True)


def slow_marginal(case):
  """p(y | x): per token [B][m] and per span [B], by loops."""
  p_z = softmax(case["score"])
  p_y = softmax(case["logits"])
  tokens, spans = [], []
  for b in range(B):
    masks = [m for m in range(M) if case["mask"][b, m]]
    p = {
      (k, m): p_y[b, k, m, case["targets"][b, m]]
      for k in range(K)
      for m in masks
    }
    tokens.append(
      [np.log(sum(p_z[b, k] * p[k, m] for k in range(K))) for m in masks]
    )
    spans.append(
      np.log(
        sum(p_z[b, k] * np.prod([p[k, m] for m in masks]) for k in range(K))
      )
    )
  return tokens, spans


@functools.partial(jax.jit, static_argnums=1)
def marginal(case, marginalise):
  gold = objective.gold_log_probs(case["logits"], case["targets"])
  return objective.marginal_gold_log_probs(
    objective.candidate_log_probs(jnp.asarray(case["score"])),
    gold,
    case["mask"],
    marginalise,
  )


def test_marginal_per_token_and_per_span(case):
  tokens, spans = slow_marginal(case)
  got = np.asarray(marginal(case, "token"))
  for b in range(B):
    n = len(tokens[b])
    np.testing.assert_allclose(got[b, :n], tokens[b], rtol=1e-5)
    np.testing.assert_array_equal(got[b, n:], 0)
  np.testing.assert_allclose(marginal(case, "span")[:, 0], spans, rtol=1e-5)


def test_loss_is_a_mean_over_masked_wordpieces(case):
  tokens, _ = slow_marginal(case)
  want = -sum(map(sum, tokens)) / sum(map(len, tokens))
  loss = objective.realm_loss(marginal(case, "token"), case["mask"])
  np.testing.assert_allclose(loss, want, rtol=1e-5)


def test_gradient_is_the_paper_s(case):
  """d log p(y|x) = sum_z [p(y|z,x) / p(y|x) - 1] p(z|x) df(x, z)."""

  def log_p(score):
    return marginal({**case, "score": score}, "span").sum()

  got = jax.grad(log_p)(jnp.asarray(case["score"]))
  p_z, p_y = softmax(case["score"]), softmax(case["logits"])
  for b in range(B):
    masks = [m for m in range(M) if case["mask"][b, m]]
    given_z = np.array(
      [
        np.prod([p_y[b, k, m, case["targets"][b, m]] for m in masks])
        for k in range(K)
      ]
    )
    p = (p_z[b] * given_z).sum()
    want = (given_z / p - 1) * p_z[b]
    np.testing.assert_allclose(got[b], want, rtol=2e-4, atol=1e-6)


def test_retrieval_utility(case):
  tokens, _ = slow_marginal(case)
  p_y = softmax(case["logits"])
  gold = objective.gold_log_probs(case["logits"], case["targets"])
  got = objective.retrieval_utility(marginal(case, "token"), gold, case["mask"])
  for b in range(B):
    masks = range(len(tokens[b]))
    null = [np.log(p_y[b, 0, m, case["targets"][b, m]]) for m in masks]
    want = np.mean(np.array(tokens[b]) - null)
    np.testing.assert_allclose(got[b], want, rtol=1e-4)


def test_utility_is_zero_when_evidence_changes_nothing(case):
  same = np.repeat(case["logits"][:, :1], K, axis=1)
  gold = objective.gold_log_probs(same, case["targets"])
  got = objective.retrieval_utility(
    marginal({**case, "logits": same}, "token"), gold, case["mask"]
  )
  np.testing.assert_allclose(got, 0, atol=1e-6)


def test_ict_loss():
  rng = np.random.default_rng(1)
  query, block = rng.normal(size=(2, 5, 3)).astype(np.float32)
  p = softmax(query @ block.T)
  loss, accuracy = objective.ict_loss(query, block)
  np.testing.assert_allclose(loss, -np.log(np.diag(p)).mean(), rtol=1e-5)
  assert accuracy == np.mean(p.argmax(1) == np.arange(5))


def test_marginal_log_loss_and_rows_without_a_right_one():
  logits = np.array([[1.0, 2.0, 3.0], [0.5, 0.1, 0.2]], np.float32)
  correct = np.array([[True, False, True], [False, False, False]])
  p = softmax(logits[0])
  got = objective.marginal_log_loss(logits, correct)
  np.testing.assert_allclose(got, [-np.log(p[0] + p[2]), 0], rtol=1e-5)
  grad = jax.grad(lambda x: objective.marginal_log_loss(x, correct).sum())(
    jnp.asarray(logits)
  )
  assert np.isfinite(grad).all() and not np.asarray(grad)[1].any()
