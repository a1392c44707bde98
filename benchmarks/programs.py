"""The pre-training step as programs: its parts, and the whole in two ways."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from realm_jax.models import bert, encoder, objective
from realm_jax.retrieval import candidates
from realm_jax.retrieval.forward import Realm
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
  hidden: Any  # [B * K, M, D] what the head gets


@dataclasses.dataclass(frozen=True)
class Instead:
  """Stands in for a Realm's encoder: gives something else of the joint
  sequences, `give(encoder, params, joint, positions)`."""

  encoder: encoder.RealmKnowledgeAugEncoder
  give: Callable[..., Any]

  def apply(self, variables, joint, positions, **_):
    """As the encoder's, whatever the method."""
    return self.give(self.encoder, variables["params"], joint, positions)


def last_hidden(model, params, joint, positions):
  """The layers without the head: [R, M, D]."""
  layers = bert.Bert(model.config)
  given = {"params": params["realm"]}
  return layers.apply(given, joint, read_positions=positions)[0]


def logits_everywhere(model, params, joint, positions):
  """Logits at all positions, then those of the masks: [R, M, V]."""
  logits = model.apply(
    {"params": params},
    joint.input_ids,
    attention_mask=joint.attention_mask,
    token_type_ids=joint.token_type_ids,
    position_ids=joint.position_ids,
  ).logits
  return jnp.take_along_axis(logits, positions[..., None], axis=1)


def joint_mask(model, params, joint, positions):
  """Which columns of the joint sequences hold a token: [R, L]."""
  del model, params, positions
  return joint.attention_mask


def with_encoder(realm: Realm, give: Callable[..., Any]) -> Realm:
  """The same forward pass with something else in the encoder's place."""
  return dataclasses.replace(realm, encoder=Instead(realm.encoder, give))


def parts(
  realm: Realm,
  tx: optax.GradientTransformation,
  embedder: BlockEmbedder,
  slices: int,
) -> dict[str, Callable[[Given], Any]]:
  """The parts of a step that embeds `slices` of the index, in its order.

  Each has its own backward pass; each is a function of Given alone.
  """
  retrieval, head = realm.retrieval, encoder.MlmHead(realm.encoder.config)
  layers = with_encoder(realm, last_hidden)

  def gradient(function, *args):  # sin: no two rows of gradients are alike
    return jax.grad(lambda *args: jnp.sin(function(*args)).sum())(*args)

  def of(given, name):
    return {name: given.state.params[name]}

  def found(given):
    return candidates.gather_blocks(given.tokens, given.ids)

  def score_words(params, table, hidden, targets):
    logits = head.apply({"params": params}, hidden, table)
    logits = logits.reshape(targets.shape[0], -1, *logits.shape[1:])
    return objective.gold_log_probs(logits, targets).sum()

  def train_head(given):
    params = given.state.params["encoder"]
    table = params["realm"]["embeddings"]["word_embeddings"]["embedding"]
    gradients = jax.grad(score_words, argnums=(0, 1, 2))
    return gradients(
      params["cls"], table, given.hidden, given.batch.mlm_targets
    )

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
      lambda p: layers.read(p, g.batch, found(g)), of(g, "encoder")
    ),
    "MLM head": train_head,
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
