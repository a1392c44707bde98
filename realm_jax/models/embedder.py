"""Embed(.) of the paper's section 3.1 and the relevance score f(x, z).

One embedder serves queries and blocks (the released code shares it); a second
one for queries can be given, as the paper describes.
"""

import flax.linen as nn
import jax.numpy as jnp

from realm_jax.config import InputError, RealmConfig
from realm_jax.models import arguments, bert, precision
from realm_jax.models.dropout import Dropout
from realm_jax.models.unpadded import Layout
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
    attention_mask: Array | None = None,
    token_type_ids: Array | None = None,
    position_ids: Array | None = None,
    head_mask: Array | None = None,
    inputs_embeds: Array | None = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    *,
    layout: Layout | None = None,
    gapless: bool = False,
    deterministic: bool = True,
  ) -> RealmEmbedderOutput | tuple:
    """Embeds sequences; arguments as the reference's forward.

    Args:
      input_ids: [R, T] wordpieces, or else inputs_embeds [R, T, D].
      attention_mask: [R, T] or [R, T, T], 0 where nothing is attended to.
      token_type_ids: [R, T] segments, 0 by default.
      position_ids: [R, T] or [1, T], 0, 1, ... by default.
      head_mask: [H], [layers, H] or [layers, R, H, T, T], 0 silences a head.
      inputs_embeds: in place of the word embeddings.
      output_attentions: whether attention weights are returned; None: as the
        config says.
      output_hidden_states: whether hidden states are; None: likewise.
      return_dict: False returns the reference's tuple.
      layout: as Bert's; not with inputs_embeds or output_hidden_states.
      gapless: as Bert's; of no effect where attentions or hidden states are
        returned.
      deterministic: no dropout.

    Raises:
      InputError: both or neither of input_ids and inputs_embeds, an id outside
        its table, or too long sequences.
    """
    c = self.config
    inputs = arguments.checked_inputs(
      c, input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds
    )
    output_attentions, output_hidden_states = arguments.wanted(
      c, output_attentions, output_hidden_states
    )
    only_cls = (
      c.pooling == "cls"
      and not (output_attentions or output_hidden_states)
      and inputs.attention_mask.ndim == 2
      and jnp.ndim(head_mask) <= 2
    )
    rows = len(inputs_embeds if input_ids is None else inputs.input_ids)
    read = jnp.zeros((rows, 1), jnp.int32)
    x, states, attentions = bert.Bert(c, name="realm")(
      inputs,
      read_positions=read if only_cls else None,
      head_mask=head_mask,
      inputs_embeds=inputs_embeds,
      layout=layout,
      gapless=gapless and not (output_attentions or output_hidden_states),
      deterministic=deterministic,
    )
    dense = precision.Dense(
      c.retriever_proj_size, bert.kernel_init(c), jnp.float32, name="dense"
    )
    mask = layout.mask if layout else inputs.attention_mask
    projected = dense(self._pool(x, mask))  # [R, P]
    projected = precision.layer_norm(c.layer_norm_eps, "norm")(projected)
    projected = Dropout(c.hidden_dropout_prob)(
      projected, deterministic=deterministic
    )
    output = RealmEmbedderOutput(
      projected_score=projected,
      hidden_states=states if output_hidden_states else None,
      attentions=attentions if output_attentions else None,
    )
    return arguments.returned(c, output, return_dict)

  def _pool(self, x, attention_mask):
    """[R, T, D] -> [R, D]."""
    if self.config.pooling == "mean":
      total = precision.precise(x)
      mask = attention_mask[..., None].astype(total.dtype)
      mean = (total * mask).sum(1) / jnp.maximum(mask.sum(1), 1)
      return mean.astype(x.dtype)
    dense = precision.Dense(
      self.config.hidden_size, bert.kernel_init(self.config), name="pooler"
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
    attention_mask: Array | None = None,
    token_type_ids: Array | None = None,
    position_ids: Array | None = None,
    candidate_input_ids: Array | None = None,
    candidate_attention_mask: Array | None = None,
    candidate_token_type_ids: Array | None = None,
    candidate_inputs_embeds: Array | None = None,
    head_mask: Array | None = None,
    inputs_embeds: Array | None = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    *,
    deterministic: bool = True,
  ) -> RealmScorerOutput | tuple:
    """Scores candidates of queries; arguments as the reference's forward.

    Args:
      input_ids: [B, Q] queries, and what goes with them as in RealmEmbedder.
      candidate_input_ids: [B, K, C] with K = config.num_candidates, or their
        rows [B * K, C]; the candidates' other arguments alike.
      position_ids: of queries and of candidates, as in the reference.
      output_attentions: accepted as by the reference; not in the output.
      output_hidden_states: the same.

    Raises:
      InputError: no queries, no candidates, or another number of candidates
        than the config's.
    """
    del output_attentions, output_hidden_states
    if input_ids is None and inputs_embeds is None:
      raise InputError("give input_ids or inputs_embeds of the queries")
    if candidate_input_ids is None and candidate_inputs_embeds is None:
      raise InputError("give candidate_input_ids or candidate_inputs_embeds")
    given = {
      "position_ids": position_ids,
      "head_mask": head_mask,
      "output_attentions": False,
      "output_hidden_states": False,
      "return_dict": True,
      "deterministic": deterministic,
    }
    embed_query = self.query_embedder or self.embedder
    query_score = embed_query(
      input_ids,
      attention_mask,
      token_type_ids,
      inputs_embeds=inputs_embeds,
      **given,
    ).projected_score  # [B, P]
    candidate_score = self.embedder(
      arguments.merge_axes(candidate_input_ids, 2),
      arguments.merge_axes(candidate_attention_mask, 2),
      arguments.merge_axes(candidate_token_type_ids, 2),
      inputs_embeds=arguments.merge_axes(candidate_inputs_embeds, 3),
      **given,
    ).projected_score  # [B * K, P]
    k, p = self.config.num_candidates, query_score.shape[1]
    batch = max(len(query_score), len(candidate_score) // k)
    given_batches = (len(query_score), len(candidate_score) / k)
    if not set(given_batches) <= {1, batch}:
      raise InputError(
        f"{len(candidate_score)} candidates for {len(query_score)} queries, but"
        f" config num_candidates={k}: give as many, or load with"
        " num_candidates=..."
      )
    candidate_score = candidate_score.reshape(-1, k, p)
    output = RealmScorerOutput(
      relevance_score=relevance_score(  # one query serves all, and vice versa
        jnp.broadcast_to(query_score, (batch, p)),
        jnp.broadcast_to(candidate_score, (batch, k, p)),
      ),
      query_score=query_score,
      candidate_score=candidate_score,
    )
    return arguments.returned(self.config, output, return_dict)


def relevance_score(query_emb: Array, candidate_emb: Array) -> Array:
  """f(x, z) = Embed(x) . Embed(z): [B, P], [B, K, P] -> [B, K]."""
  return jnp.einsum("BP,BKP->BK", query_emb, candidate_emb)
