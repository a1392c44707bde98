"""Embed(.) of the paper's section 3.1 and the relevance score f(x, z).

One embedder serves queries and blocks (the released code shares it); a second
one for queries can be given, as the paper describes.
"""

import flax.linen as nn
import jax.numpy as jnp

from realm_jax.config import RealmConfig
from realm_jax.models import bert
from realm_jax.types import Array, RealmEmbedderOutput, RealmScorerOutput


class RealmEmbedder(nn.Module):
  """BERT, pooled, projected to P and normalised.

  As in the original (orqa ict_model.py): [CLS] through BERT's pooler, a dense
  layer with bias, LayerNorm, dropout. `config.pooling="mean"` projects the mean
  of the attended tokens instead, which a small model learns far sooner.
  """

  config: RealmConfig

  @nn.compact
  def __call__(
    self,
    input_ids: Array | None = None,
    *,
    attention_mask: Array | None = None,
    token_type_ids: Array | None = None,
    position_ids: Array | None = None,
    head_mask: Array | None = None,
    inputs_embeds: Array | None = None,
    output_attentions: bool = False,
    output_hidden_states: bool = False,
    deterministic: bool = True,
  ) -> RealmEmbedderOutput:
    """Embeds sequences [R, T]; arguments as the reference's forward."""
    c = self.config
    inputs = bert.make_inputs(
      input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds
    )
    only_cls = c.pooling == "cls" and not output_hidden_states
    only_cls = only_cls and not output_attentions
    read = jnp.zeros((inputs.attention_mask.shape[0], 1), jnp.int32)
    x, states, attentions = bert.Bert(c, name="realm")(
      inputs,
      read_positions=read if only_cls else None,
      head_mask=head_mask,
      inputs_embeds=inputs_embeds,
      deterministic=deterministic,
    )
    dense = nn.Dense(
      c.retriever_proj_size, kernel_init=bert.kernel_init(c), name="dense"
    )
    projected = dense(self._pool(x, inputs.attention_mask))  # [R, P]
    projected = bert.layer_norm(c.layer_norm_eps, "norm")(projected)
    projected = nn.Dropout(c.hidden_dropout_prob)(
      projected, deterministic=deterministic
    )
    return RealmEmbedderOutput(
      projected_score=projected,
      hidden_states=states if output_hidden_states else None,
      attentions=attentions if output_attentions else None,
    )

  def _pool(self, x, attention_mask):
    """[R, T, D] -> [R, D]."""
    if self.config.pooling == "mean":
      mask = attention_mask[..., None].astype(x.dtype)
      return (x * mask).sum(1) / jnp.maximum(mask.sum(1), 1)
    dense = nn.Dense(
      self.config.hidden_size,
      kernel_init=bert.kernel_init(self.config),
      name="pooler",
    )
    return jnp.tanh(dense(x[:, 0]))


class RealmScorer(nn.Module):
  """Relevance scores of candidates: f(x, z) = Embed(x) . Embed(z).

  Attributes:
    config: the sizes.
    query_embedder: an embedder for the queries; None shares the candidates'.
  """

  config: RealmConfig
  query_embedder: RealmEmbedder | None = None

  def setup(self):
    self.embedder = RealmEmbedder(self.config)

  def __call__(
    self,
    input_ids: Array | None = None,
    *,
    attention_mask: Array | None = None,
    token_type_ids: Array | None = None,
    position_ids: Array | None = None,
    candidate_input_ids: Array | None = None,
    candidate_attention_mask: Array | None = None,
    candidate_token_type_ids: Array | None = None,
    candidate_inputs_embeds: Array | None = None,
    head_mask: Array | None = None,
    inputs_embeds: Array | None = None,
    deterministic: bool = True,
  ) -> RealmScorerOutput:
    """Scores candidates [B, K, C] of queries [B, Q].

    Raises:
      ValueError: no query or no candidates were given.
    """
    if input_ids is None and inputs_embeds is None:
      raise ValueError("give input_ids or inputs_embeds of the queries")
    if candidate_input_ids is None and candidate_inputs_embeds is None:
      raise ValueError("give candidate_input_ids or candidate_inputs_embeds")
    embed_query = self.query_embedder or self.embedder
    query_score = embed_query(
      input_ids,
      attention_mask=attention_mask,
      token_type_ids=token_type_ids,
      position_ids=position_ids,
      head_mask=head_mask,
      inputs_embeds=inputs_embeds,
      deterministic=deterministic,
    ).projected_score  # [B, P]
    candidate_score = self.embedder(
      _flat(candidate_input_ids, 2),
      attention_mask=_flat(candidate_attention_mask, 2),
      token_type_ids=_flat(candidate_token_type_ids, 2),
      head_mask=head_mask,
      inputs_embeds=_flat(candidate_inputs_embeds, 2),
      deterministic=deterministic,
    ).projected_score  # [B * K, P]
    batch = query_score.shape[0]
    candidate_score = candidate_score.reshape(batch, -1, query_score.shape[-1])
    return RealmScorerOutput(
      relevance_score=relevance_score(query_score, candidate_score),
      query_score=query_score,
      candidate_score=candidate_score,
    )


def relevance_score(query_emb: Array, candidate_emb: Array) -> Array:
  """f(x, z) = Embed(x) . Embed(z): [B, P], [B, K, P] -> [B, K]."""
  return jnp.einsum("BP,BKP->BK", query_emb, candidate_emb)


def _flat(x: Array | None, axes: int) -> Array | None:
  """Merges the first `axes` axes: [B, K, ...] -> [B * K, ...]."""
  return None if x is None else jnp.reshape(x, (-1, *jnp.shape(x)[axes:]))
