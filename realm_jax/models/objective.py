"""Section 3 of the paper on one page: what REALM maximises.

    p(z | x)  =  softmax over z of f(x, z)                           retrieve
    p(y | x)  =  sum over z of p(y | z, x) p(z | x)                  marginalise

z runs over the K candidates of a query, slot 0 of which is the null block; y
are the masked wordpieces. Everything is in log space and in float32.
"""

import jax.numpy as jnp
from jax.nn import log_softmax, logsumexp

from realm_jax.types import Array


def candidate_log_probs(relevance_score: Array) -> Array:
  """log p(z | x), [B, K] -> [B, K] (paper, section 3.1)."""
  return log_softmax(relevance_score.astype(jnp.float32), axis=-1)


def gold_log_probs(mlm_logits: Array, mlm_targets: Array) -> Array:
  """log p(y_m | z, x): logits [B, K, M, V], targets [B, M] -> [B, K, M]."""
  logits = mlm_logits.astype(jnp.float32)
  targets = jnp.broadcast_to(mlm_targets[:, None], logits.shape[:-1])
  gold = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return gold - logsumexp(logits, axis=-1)


def marginal_gold_log_probs(
  candidate_log_probs: Array,
  gold_log_probs: Array,
  mlm_mask: Array,
  marginalise: str = "token",
) -> Array:
  """log p(y | x) with the candidates summed out.

  Args:
    candidate_log_probs: [B, K] log p(z | x).
    gold_log_probs: [B, K, M] log p(y_m | z, x).
    mlm_mask: [B, M] 1 where there is a masked wordpiece.
    marginalise: "token": log sum_z p(z|x) p(y_m|z,x) for each wordpiece, as the
      released code; "span": log sum_z p(z|x) prod_m p(y_m|z,x), as the paper.

  Returns:
    [B, M] for "token" (0 where there is no mask), [B, 1] for "span".
  """
  masked = gold_log_probs * mlm_mask[:, None]  # [B, K, M]
  if marginalise == "span":
    masked = masked.sum(-1, keepdims=True)  # [B, K, 1]
  joint_gold_log_probs = candidate_log_probs[..., None] + masked
  marginal = logsumexp(joint_gold_log_probs, axis=1)
  return marginal if marginalise == "span" else marginal * mlm_mask


def realm_loss(marginal_gold_log_probs: Array, mlm_mask: Array) -> Array:
  """Negative marginal log-likelihood a masked wordpiece, () (section 3.3)."""
  return -marginal_gold_log_probs.sum() / jnp.maximum(mlm_mask.sum(), 1)


def retrieval_utility(
  marginal_gold_log_probs: Array, gold_log_probs: Array, mlm_mask: Array
) -> Array:
  """log p(y | x) - log p(y | null, x), mean over a query's masks, [B].

  What retrieval is worth: 0 if the evidence changes nothing (appendix D; as
  realm/model.py, over all candidates; slot 0 is the null block).
  """
  null = (gold_log_probs[:, 0] * mlm_mask).sum(-1)  # [B]
  gain = marginal_gold_log_probs.sum(-1) - null
  return gain / jnp.maximum(mlm_mask.sum(-1), 1)


def ict_loss(query_emb: Array, block_emb: Array) -> tuple[Array, Array]:
  """Inverse cloze task: every other block of the batch is a negative.

  Args:
    query_emb: [B, P].
    block_emb: [B, P], row b the block that query b was taken from.

  Returns:
    The cross-entropy () and the share of queries whose own block won ().
  """
  score = jnp.einsum("BP,NP->BN", query_emb, block_emb)  # [B, B]
  log_probs = log_softmax(score.astype(jnp.float32), axis=-1)
  own = jnp.diagonal(log_probs)
  correct = jnp.argmax(score, axis=-1) == jnp.arange(score.shape[0])
  return -own.mean(), correct.mean()


def marginal_log_loss(logits: Array, is_correct: Array) -> Array:
  """-log p(any correct one): logits, is_correct [B, S] -> [B].

  0 for a row where nothing is correct: such a question teaches nothing
  (orqa_model.py). Serves the retriever (over blocks) and the reader (over
  spans) of open-domain QA.
  """
  logits = logits.astype(jnp.float32)
  lowest = jnp.finfo(jnp.float32).min
  correct = logsumexp(jnp.where(is_correct, logits, lowest), axis=-1)
  loss = logsumexp(logits, axis=-1) - correct
  return jnp.where(is_correct.any(-1), loss, 0.0)
