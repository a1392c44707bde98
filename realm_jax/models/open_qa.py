"""RealmForOpenQA: the embedder of questions and the reader, in one module.

Search stands between the two and is not a matter of parameters, so it stays
outside (retrieval/candidates.py): embed, search, read.
"""

import flax.linen as nn
import jax.numpy as jnp

from realm_jax.config import RealmConfig
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.models.reader import RealmReader
from realm_jax.types import Array, Inputs


class RealmForOpenQA(nn.Module):
  """Retrieve with `embedder`, read with `reader`.

  Attributes:
    config: sizes of the embedder, and of the reader where no other is given.
    reader_config: sizes of the reader; None: the same.
  """

  config: RealmConfig
  reader_config: RealmConfig | None = None

  def setup(self):
    self.embedder = RealmEmbedder(self.config)
    self.reader = RealmReader(self.reader_config or self.config)

  def __call__(self, question: Inputs, joint: Inputs, block_mask: Array):
    """Both halves, for `init`: question [B, Q], joint [R, L]."""
    columns = jnp.broadcast_to(
      jnp.arange(block_mask.shape[1]), block_mask.shape
    )
    return self.embed(question), self.span_logits(joint, block_mask, columns)

  def embed(self, inputs: Inputs, deterministic: bool = True) -> Array:
    """Embeds questions or blocks, [R, T] -> [R, P]."""
    return self.embedder(
      inputs.input_ids,
      attention_mask=inputs.attention_mask,
      token_type_ids=inputs.token_type_ids,
      position_ids=inputs.position_ids,
      deterministic=deterministic,
    ).projected_score

  def span_logits(
    self,
    joint: Inputs,
    block_mask: Array,
    read_positions: Array,
    deterministic: bool = True,
  ) -> Array:
    """As RealmReader.span_logits."""
    return self.reader.span_logits(
      joint, block_mask, read_positions, deterministic
    )
