"""The pre-training step as programs: its parts, and the whole in two ways."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from realm_jax.retrieval import block_tokens, candidates
from realm_jax.retrieval.realm import Realm
from realm_jax.retrieval.refresh import BlockEmbedder, Index
from realm_jax.train.state import TrainState
from realm_jax.types import BlockTokens, PretrainBatch


class Given(NamedTuple):
  """What the programs are given; an argument, so that nothing is a constant."""

  state: TrainState
  index: Index
  tokens: BlockTokens
  batch: PretrainBatch
  ids: Any  # [B, K] candidates
  query_emb: Any  # [B, P]
  states: Any  # [B, K, M, D] what the head gets


@dataclasses.dataclass(frozen=True)
class Everywhere(Realm):
  """The same forward pass with logits at every position."""

  def mask_states(self, params, batch, blocks, rng=None):
    """The logits at the masks, of those at all positions: [B, K, M, V]."""
    joint, _ = self.join(batch, blocks)
    rows = candidates.flatten(joint)
    logits = self.encoder.apply(
      {"params": params["encoder"]},
      rows.input_ids,
      attention_mask=rows.attention_mask,
      token_type_ids=rows.token_type_ids,
      position_ids=rows.position_ids,
    ).logits  # [B * K, L, V]
    at = jnp.repeat(batch.mlm_positions, self.num_candidates, axis=0)
    logits = jnp.take_along_axis(logits, at[..., None], axis=1)
    return logits.reshape(*joint.input_ids.shape[:2], *logits.shape[1:])

  def word_logits(self, params, states):
    """They are that already."""
    del params
    return states

  @classmethod
  def of(cls, realm: Realm) -> "Everywhere":
    """With the parts of a realm."""
    fields = dataclasses.fields(realm)
    return cls(**{f.name: getattr(realm, f.name) for f in fields})


def parts(
  realm: Realm,
  tx: optax.GradientTransformation,
  embedder: BlockEmbedder,
  slices: int,
) -> dict[str, Callable[[Given], Any]]:
  """The parts of a step that embeds `slices` of the index, in its order.

  Each has its own backward pass; each is a function of Given alone.
  """
  retrieval = realm.retrieval

  def gradient(function, *args):  # sin: no two rows of gradients are alike
    every = tuple(range(len(args)))
    return jax.grad(lambda *a: jnp.sin(function(*a)).sum(), every)(*args)

  def of(given, name):
    return {name: given.state.params[name]}

  def found(given):
    return block_tokens.gather_blocks(given.tokens, given.ids)

  made = {
    "embed queries": lambda g: gradient(
      lambda p: retrieval.embed_query(p, g.batch.query), of(g, "embedder")
    ),
    "search": lambda g: retrieval.search(
      g.index.block_emb, g.query_emb, realm.num_candidates
    ),
    "embed candidates": lambda g: gradient(
      lambda p: retrieval.embed_candidates(p, found(g)), of(g, "embedder")
    ),
    "encoder layers": lambda g: gradient(
      lambda p: realm.mask_states(p, g.batch, found(g)), of(g, "encoder")
    ),
    "MLM head": lambda g: gradient(
      lambda p, states: realm.score_words(p, g.batch, states)[2],
      of(g, "encoder"),
      g.states,
    ),
    "optimizer": lambda g: g.state.apply_gradients(g.state.params, tx),
  }
  if slices:
    made["embed index slice"] = lambda g: embedder.advance(
      g.index, g.tokens, g.state.step, slices
    )
  return made


class Steps:
  """A training step that goes on from its own state, which it donates.

  Attributes:
    compiled: the program.
  """

  def __init__(self, train_step: Callable, given: Given):
    jitted = jax.jit(train_step, donate_argnums=(0, 1))
    self._carried = jax.tree.map(jnp.copy, (given.state, given.index))
    args = *self._carried, given.batch, given.tokens
    self.compiled = jitted.lower(*args).compile()

  def __call__(self, given: Given):
    """One step on the batch."""
    *carried, metrics = self.compiled(*self._carried, given.batch, given.tokens)
    self._carried = carried
    return carried, metrics
