"""The knowledge-augmented encoder: p(y | z, x) by masked language modelling.

BERT over the joint sequence of query and evidence, and its masked-LM head
(paper, section 3.2; head as in the reference).
"""

import flax.linen as nn
import jax.numpy as jnp

from realm_jax.config import InputError, RealmConfig
from realm_jax.models import arguments, bert, objective, precision
from realm_jax.models.unpadded import Layout
from realm_jax.types import Array, Inputs, RealmEncoderOutput

_IGNORED = -100  # a label that no loss is taken at, as torch has it


def _identity_or_normal(config: RealmConfig):
  """From "copy", the head starts by naming the wordpiece it looks at."""
  if config.init != "copy":
    return bert.kernel_init(config)
  return lambda rng, shape, dtype=jnp.float32: jnp.eye(*shape, dtype=dtype)


class MlmHead(nn.Module):
  """Hidden states -> logits over the vocabulary, tied to the word table."""

  config: RealmConfig

  @nn.compact
  def __call__(self, x: Array, word_table: Array) -> Array:
    """[..., D], [V, D] -> [..., V]."""
    c = self.config
    dense = precision.Dense(c.hidden_size, _identity_or_normal(c), name="dense")
    x = bert.activation(c)(dense(x))
    norm = precision.layer_norm(
      c.layer_norm_eps, "norm", precision.compute_type(c)
    )
    bias = self.param("bias", nn.initializers.zeros, (c.vocab_size,))
    return precision.affine(norm(x), word_table.T, bias, jnp.float32)


class RealmKnowledgeAugEncoder(nn.Module):
  """Joint sequences -> logits of the masked wordpieces, and the loss."""

  config: RealmConfig

  def setup(self):
    self.realm = bert.Bert(self.config)
    self.cls = MlmHead(self.config)

  def mlm_logits(
    self, joint: Inputs, mlm_positions: Array, deterministic: bool = True
  ) -> Array:
    """Logits at the masked positions alone: [R, L], [R, M] -> [R, M, V]."""
    states = self.mask_states(joint, mlm_positions, None, deterministic)
    return self.word_logits(states)

  def mask_states(
    self,
    joint: Inputs,
    mlm_positions: Array,
    layout: Layout | None = None,
    deterministic: bool = True,
  ) -> Array:
    """What the layers make of the masks: [R, L], [R, M] -> [R, M, D].

    The tokens of a joint sequence are its first places.
    """
    x, _, _ = self.realm(
      joint,
      read_positions=mlm_positions,
      layout=layout,
      gapless=True,
      deterministic=deterministic,
    )
    return x

  def word_logits(self, states: Array) -> Array:
    """What stands there: [..., D] -> [..., V]."""
    return self.cls(states, self.realm.word_table)

  def __call__(
    self,
    input_ids: Array | None = None,
    attention_mask: Array | None = None,
    token_type_ids: Array | None = None,
    position_ids: Array | None = None,
    head_mask: Array | None = None,
    inputs_embeds: Array | None = None,
    relevance_score: Array | None = None,
    labels: Array | None = None,
    mlm_mask: Array | None = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    *,
    deterministic: bool = True,
  ) -> RealmEncoderOutput | tuple:
    """Reads joint sequences, as the reference's forward.

    Args:
      input_ids: [B, K, L] or their rows [B * K, L]; the other sequences alike
        (see RealmEmbedder), position_ids also [1, L].
      relevance_score: [B, K] of the candidates, K = config.num_candidates.
      labels: [B, L] the wordpieces to predict, -100 where there is none.
      mlm_mask: [B, L] 1 at the positions of the loss; None: at all of them.

    Returns:
      logits [B * K, L, V], and the loss () where there are labels.

    Raises:
      InputError: labels without relevance_score, a label that is no wordpiece,
        or another number of candidates than the config's.
    """
    c = self.config
    if labels is not None and relevance_score is None:
      raise InputError("labels need relevance_score, [B, K]")
    arguments.check_ids("labels", labels, c.vocab_size, ignored=_IGNORED)
    inputs_embeds = arguments.merge_axes(inputs_embeds, 3)
    rows = [
      arguments.merge_axes(x, 2)
      for x in (input_ids, attention_mask, token_type_ids, position_ids)
    ]
    inputs = arguments.checked_inputs(c, *rows, inputs_embeds)
    x, states, attentions = self.realm(
      inputs,
      head_mask=head_mask,
      inputs_embeds=inputs_embeds,
      deterministic=deterministic,
    )
    logits = self.cls(x, self.realm.word_table)  # [B * K, L, V]
    loss = None
    if labels is not None:
      if len(x) != len(labels) * c.num_candidates:
        raise InputError(
          f"{len(x)} sequences for {len(labels)} rows of labels, but config"
          f" num_candidates={c.num_candidates}: give as many, or load with"
          " num_candidates=..."
        )
      loss = _loss(logits, relevance_score, labels, mlm_mask)
    output_attentions, output_hidden_states = arguments.wanted(
      c, output_attentions, output_hidden_states
    )
    output = RealmEncoderOutput(
      loss=loss,
      logits=logits,
      hidden_states=states if output_hidden_states else None,
      attentions=attentions if output_attentions else None,
    )
    return arguments.returned(c, output, return_dict)


def _loss(logits, relevance_score, labels, mlm_mask):
  """The marginal log-likelihood over full-length labels, ().

  As the reference, an ignored label that mlm_mask (or its absence) includes
  counts as predicted with certainty: it adds 0 and is part of the mean.
  """
  relevance_score, labels = jnp.asarray(relevance_score), jnp.asarray(labels)
  wanted = (labels != _IGNORED).astype(jnp.float32)  # [B, L]
  mask = jnp.ones_like(wanted) if mlm_mask is None else jnp.asarray(mlm_mask)
  mask = mask.astype(jnp.float32)
  logits = logits.reshape(*relevance_score.shape, *logits.shape[1:])
  gold = objective.gold_log_probs(logits, jnp.maximum(labels, 0))
  marginal = objective.marginal_gold_log_probs(
    objective.candidate_log_probs(relevance_score), gold, wanted
  )
  total = mask.sum()
  return -(marginal * mask).sum() / jnp.where(total == 0, 1.0, total)
