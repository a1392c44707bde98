"""Attention behind one function, by the backend that a config names.

  config.attention   runs on         takes                         drops weights
  "xla"              any device      all that there is             yes
  "cudnn"            NVIDIA's GPUs   bfloat16; heads of 8 to 128,  no
                                     in eights
  "module:function"  what yours      see `Fast`                    no
                     runs on

"xla" writes all weights to memory, [R, H, T, T]. The others, the fast ones,
write none (flash attention) and skip padding; they are for whole sequences
whose tokens are their first places. The rest is XLA's under any name, the same
sums:

- queries at a few positions: there are few weights;
- a mask with gaps (query_mask_token=False) or of nobody knows what (the
  reference's forwards), one for each query, a head mask;
- weights that are returned (output_attentions);
- the plan of a device that is not here: as many FLOPs, and more memory.

Weights that are to be dropped are not: a fast backend refuses to train with
attention_probs_dropout_prob over 0. In evaluation nothing is dropped.
"""

from typing import Protocol

import jax
import jax.numpy as jnp
from flax import struct

from realm_jax import backend
from realm_jax.config import InputError, RealmConfig, imported
from realm_jax.models import precision
from realm_jax.models.dropout import Dropout
from realm_jax.types import Array


class Fast(Protocol):
  """A backend: what the function of "module:function" is.

  A TPU's splash attention fits in: one sequence at a time, with the places
  from its length on in a segment of their own.
  """

  def __call__(self, q: Array, k: Array, v: Array, lengths: Array) -> Array:
    """Contexts [R, T, H, D/H], in v's type.

    Args:
      q: [R, T, H, D/H], not scaled yet by (D/H) ** -0.5; k, v: likewise.
      lengths: [R] int32, 1 or more: the places of each sequence that are
        attended to. Contexts of the places after them are read by nobody, but
        must be numbers.
    """


@struct.dataclass
class Seen:
  """What queries attend to.

  Attributes:
    bias: [R, 1, 1 or T, T] added to the scores: 0, or the lowest finite number
      where nothing is attended to.
    lengths: [R] of sequences for a fast backend; None: XLA's.
  """

  bias: Array
  lengths: Array | None = None


def seen(
  config: RealmConfig, attention_mask: Array, gapless: bool, dtype
) -> Seen:
  """What a mask leaves to be attended to.

  Args:
    config: names the backend.
    attention_mask: [R, T] or, by query, [R, T, T]; 0 where masked.
    gapless: whether the tokens of every sequence are its first places.
    dtype: of the scores.
  """
  per_query = attention_mask.ndim == 3
  mask = attention_mask[:, None] if per_query else attention_mask[:, None, None]
  bias = (1.0 - mask.astype(dtype)) * jnp.finfo(dtype).min
  is_here = backend.name() == jax.default_backend()
  if config.attention == "xla" or not (gapless and is_here) or per_query:
    return Seen(bias)
  lengths = jnp.maximum(attention_mask.astype(jnp.int32).sum(-1), 1)
  return Seen(bias, lengths)


def attend(
  name: str,
  q: Array,
  k: Array,
  v: Array,
  to: Seen,
  drop: Dropout,
  head_mask: Array | None = None,
) -> tuple[Array, Array | None]:
  """Mixes values by how well queries and keys fit.

  Args:
    name: config.attention.
    q: [R, T', H, D/H].
    k, v: [R, T, H, D/H].
    to: what is attended to; with lengths, T' = T.
    drop: of weights.
    head_mask: [R or 1, H, T' or 1, T or 1], 0 silences a head.

  Returns:
    The contexts [R, T', H, D/H], and the weights [R, H, T', T]; None of a fast
    backend.

  Raises:
    InputError: weights are to be dropped by a backend that can't, or there is
      no such backend here.
  """
  if to.lengths is None or head_mask is not None:
    return _xla(q, k, v, to.bias, drop, head_mask)
  _check_dropout(name, "", drop.rate)
  return find(name)(q, k, v, to.lengths), None


def _xla(q, k, v, bias, drop, head_mask):
  scores = jnp.einsum("rqhd,rkhd->rhqk", q * q.shape[-1] ** -0.5, k)
  weights = jax.nn.softmax(precision.precise(scores) + bias, axis=-1)
  dropped = drop(weights, deterministic=False)
  if head_mask is not None:
    dropped = dropped * head_mask
  return jnp.einsum("rhqk,rkhd->rqhd", dropped.astype(v.dtype), v), dropped


def _cudnn(q: Array, k: Array, v: Array, lengths: Array) -> Array:
  places = q.shape[1]
  if places % 2:  # JAX differentiates an even number of them alone
    q, k, v = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (q, k, v))
  mixed = jax.nn.dot_product_attention(
    q,
    k,
    v,
    query_seq_lengths=lengths,
    key_value_seq_lengths=lengths,
    implementation="cudnn",
  )
  return mixed[:, :places]


def find(name: str) -> Fast:
  """The fast backend of that name.

  Raises:
    InputError: it can't be imported, or doesn't run on this device.
  """
  if ":" in name:
    return imported(name, "attention")
  if backend.name() != "gpu":
    raise InputError(
      f"config attention={name}: runs on NVIDIA's GPUs, and the device is a"
      f" {backend.name().upper()}: give attention=xla"
    )
  return _cudnn


def check_training(config: RealmConfig, prefix: str = "") -> None:
  """Refuses to train by a backend that is not here, or as if it dropped weights.

  Args:
    config: of the model.
    prefix: of its fields' names, "encoder.".

  Raises:
    InputError: names the field, its value and the mend.
  """
  if config.attention != "xla":
    find(config.attention)
    _check_dropout(
      config.attention, prefix, config.attention_probs_dropout_prob
    )


def _check_dropout(name, prefix, rate):
  if rate > 0:
    field = f"{prefix}attention_probs_dropout_prob"
    raise InputError(
      f"config {field}={rate}: attention={name} cannot drop attention weights:"
      f" give {field}=0 or attention=xla"
    )
