"""The BERT encoder: the body of every model of REALM.

Follows the reference (transformers 4.34, modeling_realm.py) number for number,
with four things that change only the cost: the query, key and value products
are one matrix product; a caller that reads few positions (the [CLS] vector, the
masked tokens) has the last layer computed at those alone; padding is computed
only where a caller asks for no better layout; parameters that no forward reads
are not in the tree.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from realm_jax.config import InputError, RealmConfig
from realm_jax.models import attention, precision
from realm_jax.models.dropout import Dropout
from realm_jax.models.precision import Dense, layer_norm
from realm_jax.models.unpadded import Layout
from realm_jax.types import Array, Inputs

_ACTIVATIONS = {
  "gelu": functools.partial(nn.gelu, approximate=False),
  "gelu_new": functools.partial(nn.gelu, approximate=True),
  "relu": nn.relu,
  "selu": nn.selu,
}

# In an encoder of init "copy": what a token adds to those that attend to it.
_COPY_GAIN = 2.0
# Spread of the tables. "copy": words and positions far enough apart to be told
# from each other by an untrained query-key product. "words": words that
# outweigh positions, so that the mean of a text begins as its bag of words.
_EMBEDDING_STD = {
  "copy": {"word": 0.1, "position": 0.1},
  "words": {"word": 0.1},
}


def activation(config: RealmConfig) -> Callable[[Array], Array]:
  """The function that config.hidden_act names, or is."""
  act = config.hidden_act
  return act if callable(act) else _ACTIVATIONS[act]


def kernel_init(config: RealmConfig):
  """BERT's initialisation of matrices: truncated normal."""
  return nn.initializers.truncated_normal(config.initializer_range)


def embedding_init(config: RealmConfig, table: str):
  """The same for a table; wider where a small model has to learn soon."""
  std = _EMBEDDING_STD.get(config.init, {}).get(table)
  return nn.initializers.normal(std) if std else kernel_init(config)


class Embeddings(nn.Module):
  """Sum of word, position and segment embeddings, normalised."""

  config: RealmConfig

  def setup(self):
    c = self.config
    if not -c.vocab_size <= (c.pad_token_id or 0) < c.vocab_size:
      raise InputError(
        f"config pad_token_id={c.pad_token_id}: wanted a row of the word"
        f" table, less than vocab_size={c.vocab_size}"
      )
    self.word_embeddings = self._table("word", c.vocab_size)
    self.position_embeddings = self._table(
      "position", c.max_position_embeddings
    )
    self.token_type_embeddings = self._table("token_type", c.type_vocab_size)
    self.norm = layer_norm(c.layer_norm_eps, None, precision.compute_type(c))
    self.dropout = Dropout(c.hidden_dropout_prob)

  def __call__(
    self, input_ids, token_type_ids, position_ids, inputs_embeds, deterministic
  ):
    if inputs_embeds is None:
      inputs_embeds = self.word_embeddings(input_ids)  # [R, T, D]
    x = (
      inputs_embeds
      + self.position_embeddings(position_ids)
      + self.token_type_embeddings(token_type_ids)
    )
    return self.dropout(self.norm(x), deterministic=deterministic)

  def _table(self, name: str, size: int) -> nn.Embed:
    init = embedding_init(self.config, name)
    return nn.Embed(size, self.config.hidden_size, embedding_init=init)


class Attention(nn.Module):
  """Multi-head self-attention: keys and values at `x`, queries there as well
  or at `x_read`."""

  config: RealmConfig
  layer: int

  @nn.compact
  def __call__(self, x, x_read, seen, head_mask, layout, deterministic):
    """Returns the mixed values [R, T', D] and the weights as `attend` does.

    With a layout, x is [G, S, D], and so are the values without x_read.
    """
    c = self.config
    d, heads = c.hidden_size, c.num_attention_heads
    # an axis of its own for the three, so that a mesh can split their heads
    kernel = self.param("qkv_kernel", self._qkv_init, (d, 3, d))
    offset = self.param("qkv_bias", nn.initializers.zeros, (3, d))

    def project(x, which, spread=lambda x: x):
      y = spread(precision.affine(x, kernel[:, which], offset[which]))
      y = y.reshape(*y.shape[:-1], heads, d // heads)  # [R, T, 1-3, H, D/H]
      # jnp.split: its gradient is one concatenation, that of indexing three sums
      return (part[:, :, 0] for part in jnp.split(y, y.shape[2], axis=2))

    spread = layout.unpack if layout else lambda x: x
    if x_read is None:
      q, k, v = project(x, slice(3), spread)
    else:
      (q,) = project(x_read, slice(1))
      k, v = project(x, slice(1, 3), spread)
      seen = seen.replace(lengths=None)  # few weights, and no whole sequences
    drop = Dropout(0.0 if deterministic else c.attention_probs_dropout_prob)
    mixed, weights = attention.attend(
      c.attention, q, k, v, seen, drop, head_mask
    )
    mixed = mixed.reshape(*mixed.shape[:2], d)
    if layout and x_read is None:
      mixed = layout.pack(mixed)
    out = Dense(d, self._out_init, name="out")
    return out(mixed), weights

  def _copy_matrix(self, shape, dtype):
    """One orthogonal matrix a layer, the same for the values and the output."""
    rng = jax.random.key(self.layer)
    return nn.initializers.orthogonal()(rng, shape, dtype)

  def _qkv_init(self, rng, shape, dtype=jnp.float32):
    kernel = kernel_init(self.config)(rng, shape, dtype)
    if self.config.init != "copy":
      return kernel
    d = shape[0]
    return kernel.at[:, 2].set(self._copy_matrix((d, d), dtype))

  def _out_init(self, rng, shape, dtype=jnp.float32):
    if self.config.init != "copy":
      return kernel_init(self.config)(rng, shape, dtype)
    return _COPY_GAIN * self._copy_matrix(shape, dtype).T


class Layer(nn.Module):
  """One transformer layer, normalised after each residual sum."""

  config: RealmConfig
  layer: int

  @nn.compact
  def __call__(self, x, x_read, seen, head_mask, layout, deterministic):
    c = self.config
    drop = Dropout(c.hidden_dropout_prob)
    dtype = precision.compute_type(c)
    mixed, weights = Attention(c, self.layer, name="attention")(
      x, x_read, seen, head_mask, layout, deterministic
    )
    x = x if x_read is None else x_read
    x = x + drop(mixed, deterministic=deterministic)
    x = layer_norm(c.layer_norm_eps, "attention_norm", dtype)(x)
    init = kernel_init(c)
    hidden = Dense(c.intermediate_size, init, name="intermediate")(x)
    hidden = activation(c)(hidden)
    hidden = Dense(c.hidden_size, init, name="output")(hidden)
    x = x + drop(hidden, deterministic=deterministic)
    return layer_norm(c.layer_norm_eps, "output_norm", dtype)(x), weights


# What the backward pass finds of a layer: all of it; its input alone; its input
# and the products with weights.
_recomputed = functools.partial(nn.remat, static_argnums=6)
_REMAT = {
  "none": lambda layer: layer,
  "full": _recomputed,
  "dots": functools.partial(
    _recomputed,
    policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  ),
}


class Bert(nn.Module):
  """Embeddings and layers.

  Attributes:
    config: the sizes.
  """

  config: RealmConfig

  def setup(self):
    self.embeddings = Embeddings(self.config)
    layer = _REMAT[self.config.remat](Layer)
    self.layers = [
      layer(self.config, i) for i in range(self.config.num_hidden_layers)
    ]

  def __call__(
    self,
    inputs: Inputs,
    *,
    read_positions: Array | None = None,
    head_mask: Array | None = None,
    inputs_embeds: Array | None = None,
    layout: Layout | None = None,
    gapless: bool = False,
    deterministic: bool = True,
  ) -> tuple[Array, tuple[Array, ...], tuple[Array | None, ...]]:
    """Encodes sequences.

    Args:
      inputs: [R, T] tokens.
      read_positions: [R, M] positions at which the last layer is wanted; None
        for all of them.
      head_mask: [H], [layers, H] or [layers, R, H, T', T], 0 silences a head.
      inputs_embeds: [R, T, D] in place of the word embeddings.
      layout: of the tokens that are computed and attended to, none of which
        is padding; its mask is taken for the inputs'.
      gapless: whether the tokens of every sequence are its first places, and
        nobody wants weights or what stands on padding: a fast backend may
        attend (models/attention.py).
      deterministic: no dropout.

    Returns:
      The last layer's output [R, T, D] (or [R, M, D]), the hidden states of
      embeddings and layers ([G, S, D] with a layout), and the attention
      weights of each layer, None of a fast backend.
    """
    if layout:
      inputs = inputs.replace(attention_mask=layout.mask)
    x = self.embed(inputs, inputs_embeds, layout, deterministic)
    seen = attention.seen(
      self.config, inputs.attention_mask, gapless, precision.precise(x).dtype
    )
    head_mask = all_head_masks(head_mask, self.config)
    states, attentions = [x], []
    for i, layer in enumerate(self.layers):
      x_read = None
      if read_positions is not None and i == len(self.layers) - 1:
        padded = layout.unpack(x) if layout else x
        x_read = jnp.take_along_axis(padded, read_positions[..., None], axis=1)
      mask = None if head_mask is None else head_mask[i]
      x, weights = layer(x, x_read, seen, mask, layout, deterministic)
      states.append(x)
      attentions.append(weights)
    if layout and read_positions is None:
      x = layout.unpack(x)
    return x, tuple(states), tuple(attentions)

  def embed(
    self, inputs: Inputs, inputs_embeds=None, layout=None, deterministic=True
  ):
    """The normalised sum of embeddings, [R, T, D] or [G, S, D]."""
    positions = inputs.position_ids
    if positions is None:
      positions = jnp.arange(inputs.attention_mask.shape[-1])[None]
    ids = (inputs.input_ids, inputs.token_type_ids, positions, inputs_embeds)
    if layout:
      shape = layout.mask.shape
      ids = (
        x
        if x is None
        else layout.pack(jnp.broadcast_to(x, shape + x.shape[2:]))
        for x in ids
      )
    return self.embeddings(*ids, deterministic)

  @property
  def word_table(self) -> Array:
    """[V, D], for the tied output layer of a masked-LM head."""
    return self.embeddings.word_embeddings.embedding


def all_head_masks(
  head_mask: Array | None, config: RealmConfig
) -> Array | None:
  """[H], [layers, H] or [layers, R, H, T, T] -> the last, axes of 1 allowed.

  Raises:
    InputError: another number of axes, layers or heads.
  """
  if head_mask is None:
    return None
  sizes = (config.num_hidden_layers, config.num_attention_heads)
  head_mask = jnp.asarray(head_mask)
  if head_mask.ndim == 5:
    return head_mask
  if head_mask.shape not in (sizes[1:], sizes):
    raise InputError(
      f"head_mask of shape {head_mask.shape}: wanted {sizes[1:]} (heads) or"
      f" {sizes} (layers, heads)"
    )
  return jnp.broadcast_to(head_mask, sizes)[:, None, :, None, None]


def make_inputs(
  input_ids: Array | None,
  attention_mask: Array | None = None,
  token_type_ids: Array | None = None,
  position_ids: Array | None = None,
  inputs_embeds: Array | None = None,
) -> Inputs:
  """Fills in the reference's defaults: all tokens attended to, segment 0.

  Raises:
    InputError: both or neither of input_ids and inputs_embeds are given.
  """
  if (input_ids is None) == (inputs_embeds is None):
    raise InputError("give exactly one of input_ids and inputs_embeds")
  given = inputs_embeds[..., 0] if input_ids is None else input_ids
  shape = jnp.shape(given)
  return Inputs(
    input_ids=None if input_ids is None else jnp.asarray(input_ids),
    attention_mask=jnp.ones(shape, jnp.int32)
    if attention_mask is None
    else jnp.asarray(attention_mask),
    token_type_ids=jnp.zeros(shape, jnp.int32)
    if token_type_ids is None
    else jnp.asarray(token_type_ids),
    position_ids=None if position_ids is None else jnp.asarray(position_ids),
  )
