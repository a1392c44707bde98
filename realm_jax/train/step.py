"""One training step of each kind: gradients, metrics, update.

`make_*_step` returns step(state, index, batch, tokens) -> (state, index,
metrics), pure and ready for `JitStep`. A step sees the whole batch; under a
mesh the compiler splits it.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from realm_jax import sharding
from realm_jax.models import objective, reader
from realm_jax.retrieval import candidates
from realm_jax.retrieval.block_tokens import Tokens
from realm_jax.retrieval.open_qa import OpenQa
from realm_jax.retrieval.realm import Realm
from realm_jax.retrieval.refresh import BlockEmbedder, Index
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.train import accumulate, parts
from realm_jax.train.accumulate import Mean
from realm_jax.train.state import TrainState
from realm_jax.types import IctBatch, PretrainBatch, QaBatch

Step = Callable[..., tuple[TrainState, Index | None, dict]]


def make_ict_step(
  retrieval: Retrieval,
  tx: optax.GradientTransformation,
  seed: int,
  microbatches: int = 1,
) -> Step:
  """The inverse cloze task (ORQA, section 4): warm start of the embedder.

  All other blocks of the batch are negatives, whatever device and part of the
  batch they are in.
  """
  fill = retrieval.fill

  def room(query_mask, block_mask):
    return retrieval.room((query_mask, fill.query), (block_mask, fill.block))

  def loss_fn(params, batch: IctBatch, rng):
    rngs = jax.random.split(rng)
    query_emb = parts.embed_in_parts(
      lambda query, key: retrieval.embed_query(params, query, key),
      batch.query, rngs[0], microbatches,
    )  # fmt: skip
    block_emb = parts.embed_in_parts(
      lambda block, key: retrieval.embed(params, block, key, fill.block),
      batch.block, rngs[1], microbatches,
    )  # fmt: skip
    score = query_emb * retrieval.score_scale
    loss, accuracy = objective.ict_loss(score, block_emb)  # [B, P] both
    masks = batch.query.attention_mask, batch.block.attention_mask
    # as they are laid out
    figures = parts.mean_of_parts(room, masks, microbatches)
    figures["tokens"] *= microbatches
    return loss, {"loss": loss, "accuracy": accuracy, **figures}

  def step(state, index, batch, tokens):
    del tokens  # the pairs are in the batch
    state, metrics = _update(loss_fn, tx, seed, state, batch, retrieval.mesh)
    return state, index, metrics

  return step


def make_encoder_step(
  realm: Realm,
  tx: optax.GradientTransformation,
  seed: int,
  null_share: float,
  microbatches: int = 1,
) -> Step:
  """Warm start of the encoder: reads the text's own block, or the null block.

  A share of the queries sees the null block, so that p(y | null, x) is learnt
  as well and the retrieval utility compares two trained predictions. Of the
  others only wordpieces that stand in the block are scored: the rest can't be
  read there, and would drown the lesson.
  """

  def loss_fn(tokens, params, batch: PretrainBatch, rng):
    rngs = jax.random.split(rng)
    block = jnp.where(batch.own_block >= 0, batch.own_block, batch.gold_block)
    null = jax.random.uniform(rngs[0], block.shape) < null_share
    ids = jnp.where(null, candidates.NULL, block)[:, None]  # [B, 1]
    blocks = realm.retrieval.gather_blocks(tokens, ids)
    states = realm.mask_states(params, batch, blocks, rngs[1])
    mask, _, gold = realm.score_words(params, batch, states)
    shown = realm.shows(batch, blocks)[:, 0]  # [B, M]
    mask = mask * (shown | null[:, None])
    loss = objective.realm_loss(gold[:, 0] * mask, mask)
    return loss, {
      "loss": Mean(loss, mask.sum()),
      **realm.room(batch, blocks),
    }

  mesh = realm.retrieval.mesh

  def step(state, index, batch, tokens):
    bound = functools.partial(loss_fn, tokens)
    state, metrics = _update(bound, tx, seed, state, batch, mesh, microbatches)
    return state, index, metrics

  return step


def make_pretrain_step(
  realm: Realm,
  tx: optax.GradientTransformation,
  seed: int,
  embedder: BlockEmbedder,
  slices_per_step: int,
  microbatches: int = 1,
) -> Step:
  """REALM pre-training: marginal log-likelihood of the masked wordpieces."""

  def loss_fn(index: Index, tokens, params, batch: PretrainBatch, rng):
    made_by = index.params and {"embedder": index.params}
    out = realm(params, index.block_emb, tokens, batch, rng, made_by)
    marginal = out.marginal_gold_log_probs
    loss = objective.realm_loss(marginal, out.mlm_mask)
    utility = objective.retrieval_utility(
      marginal, out.gold_log_probs, out.mlm_mask
    )
    probs = jnp.exp(out.candidate_log_probs)
    is_gold = out.candidate_ids == batch.gold_block[:, None]
    has_gold = (is_gold & (batch.gold_block[:, None] >= 0)).any(1)
    known = (batch.gold_block >= 0).sum()
    gold_found = has_gold.sum() / jnp.maximum(known, 1)
    return loss, {
      "loss": Mean(loss, out.mlm_mask.sum()),
      "retrieval_utility": utility.mean(),
      "null_mass": probs[:, 0].mean(),
      "candidate_entropy": -(probs * out.candidate_log_probs).sum(1).mean(),
      "gold_in_candidates": Mean(gold_found, known),
      **out.room,
    }

  mesh = realm.retrieval.mesh

  def step(state, index, batch, tokens):
    bound = functools.partial(loss_fn, index, tokens)
    new_state, metrics = _update(
      bound, tx, seed, state, batch, mesh, microbatches
    )
    metrics |= _age(index, state.step)
    if slices_per_step:
      index = embedder.advance(index, tokens, state.step, slices_per_step)
    return new_state, index, metrics

  return step


def make_finetune_step(
  open_qa: OpenQa,
  tx: optax.GradientTransformation,
  seed: int,
  searcher_beam_size: int,
  embedder: BlockEmbedder,
  slices_per_step: int,
  microbatches: int = 1,
) -> Step:
  """Open-domain QA: retriever loss over blocks plus reader loss over spans."""

  def loss_fn(block_emb, tokens, params, batch: QaBatch, rng):
    out = open_qa(
      params, block_emb, tokens, batch.question, searcher_beam_size, rng
    )
    labels = open_qa.labels(tokens, batch, out)
    retriever_loss, reader_loss = reader.qa_losses(
      out.relevance_score, labels.has_answer, out.span_logits, labels.gold_span
    )
    loss = (retriever_loss + reader_loss).mean()
    best = out.span_logits.reshape(out.block.shape[0], -1).argmax(-1)
    gold = labels.gold_span.reshape(out.block.shape[0], -1)
    right = jnp.take_along_axis(gold, best[:, None], axis=1)[:, 0]
    return loss, {
      "loss": loss,
      "retriever_loss": retriever_loss.mean(),
      "reader_loss": reader_loss.mean(),
      "exact_match": right.mean(),
      "reader_oracle": gold.any(-1).mean(),
      "answer_in_beam": labels.has_answer.any(-1).mean(),
      **out.room,
    }

  mesh = open_qa.retrieval.mesh

  def step(state, index, batch, tokens):
    bound = functools.partial(loss_fn, index.block_emb, tokens)
    new_state, metrics = _update(
      bound, tx, seed, state, batch, mesh, microbatches
    )
    metrics |= _age(index, state.step)
    if slices_per_step:
      index = embedder.advance(index, tokens, state.step, slices_per_step)
    return new_state, index, metrics

  return step


class JitStep:
  """A compiled step, state and index donated, bound to the block tokens.

  The tokens are an argument of the compiled program, not a constant of it.

  Attributes:
    jaxpr: the trace that was compiled; None before the first call.
  """

  def __init__(self, step: Step, tokens: Tokens | None):
    self._step, self._tokens = step, tokens
    self._jitted = self.jaxpr = None

  def __call__(self, state, index, batch):
    """(state, index, batch) -> (state, index, metrics)."""
    args = state, index, batch, self._tokens
    if self._jitted is None:
      self._jitted = donated(self._step, state)
      self.jaxpr = self._jitted.trace(*args).jaxpr  # the call traces no more
    return self._jitted(*args)


def donated(step: Step, state: TrainState) -> Step:
  """The jitted step, from whose state a new one is made in the same place.

  Args:
    step: step(state, index, batch, tokens).
    state: arrays, or ShapeDtypeStructs that say where.
  """
  places = jax.tree.map(lambda x: x.sharding, state)
  return jax.jit(
    step, donate_argnums=(0, 1), out_shardings=(places, None, None)
  )


def _update(loss_fn, tx, seed, state, batch, mesh, microbatches=1):
  """One optimizer step; dropout keys depend on seed and step number only."""

  def grad_fn(batch, rng):
    def loss(params):
      return loss_fn(sharding.gather(params, mesh), batch, rng)

    return jax.grad(loss, has_aux=True)(state.params)

  rng = jax.random.fold_in(jax.random.key(seed), state.step)
  grads, metrics = accumulate.gradients(grad_fn, batch, rng, microbatches)
  metrics["grad_norm"] = optax.global_norm(grads)
  metrics["tokens"] *= microbatches  # was the mean of the parts
  return state.apply_gradients(grads, tx), metrics


def _age(index: Index, step) -> dict:
  """How old the index is that this step searched."""
  return {
    "index_version": index.version,
    "index_staleness": step - index.params_step,
  }
