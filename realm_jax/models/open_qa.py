"""RealmForOpenQA: the embedder of questions and the reader, in one module.

Search stands between the two and is not a matter of parameters, so it stays
outside: embed, search, read. What it found comes in as `Evidence`, and the
whole is a function of params and arrays that can be jitted and differentiated.
"""

import flax.linen as nn
import jax.numpy as jnp

from realm_jax.config import InputError, RealmConfig
from realm_jax.models import arguments, bert
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.models.reader import RealmReader
from realm_jax.types import (
  Array,
  Evidence,
  Inputs,
  RealmForOpenQAOutput,
  RealmReaderOutput,
)


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

  def __call__(
    self,
    input_ids: Array | None = None,
    attention_mask: Array | None = None,
    token_type_ids: Array | None = None,
    evidence: Evidence | None = None,
    return_dict: bool | None = None,
    *,
    deterministic: bool = True,
  ) -> RealmForOpenQAOutput | tuple:
    """Answers questions from evidence, as the reference's forward after search.

    Relevance is computed anew from the question, so its gradient reaches the
    embedder; the blocks' embeddings are the index's, as in the reference. The
    reference's `answer_ids` are for the search, which finds them in the texts
    (pretrained.find_evidence).

    Args:
      input_ids: [B, T] questions; [1, T] where evidence has no axis B.
      attention_mask, token_type_ids: [B, T].
      evidence: what search found. May be left out in `init` alone.
      return_dict: False returns the reference's tuple.
      deterministic: no dropout.

    Raises:
      InputError: no evidence, or of another number of questions.
    """
    if evidence is None:
      if not self.is_initializing():
        raise InputError(
          "give evidence: see realm_jax.pretrained.find_evidence"
        )
      evidence = self._no_evidence()
    query_emb = self.embedder(
      input_ids,
      attention_mask,
      token_type_ids,
      output_attentions=False,
      output_hidden_states=False,
      return_dict=True,
      deterministic=deterministic,
    ).projected_score  # [B, P]
    block_emb = jnp.asarray(evidence.block_emb)  # [B, N, P] or [N, P]
    one = block_emb.ndim == 2
    if query_emb.shape[:1] != ((1,) if one else block_emb.shape[:1]):
      raise InputError(
        f"{len(query_emb)} questions, but evidence of shape {block_emb.shape}"
      )
    query_emb = query_emb[0] if one else query_emb
    joint = evidence.joint
    output = self.reader(
      joint.input_ids,
      joint.attention_mask,
      joint.token_type_ids,
      joint.position_ids,
      relevance_score=jnp.einsum("...P,...NP->...N", query_emb, block_emb),
      block_mask=evidence.block_mask,
      start_positions=evidence.start_positions,
      end_positions=evidence.end_positions,
      has_answers=evidence.has_answers,
      return_dict=True,
      deterministic=deterministic,
    )
    width = self.reader.config.max_span_width
    answer = RealmForOpenQAOutput(
      output, _answer_ids(joint.input_ids, output, width)
    )
    return arguments.returned(self.config, answer, return_dict)

  def embed(self, inputs: Inputs, deterministic: bool = True) -> Array:
    """Embeds questions or blocks, [R, T] -> [R, P]."""
    return self.embedder(
      inputs.input_ids,
      attention_mask=inputs.attention_mask,
      token_type_ids=inputs.token_type_ids,
      position_ids=inputs.position_ids,
      deterministic=deterministic,
      return_dict=True,
    ).projected_score

  def _no_evidence(self) -> Evidence:
    """One block of padding for one question, to make the params with."""
    tokens = jnp.zeros((1, self.reader.config.max_span_width), jnp.int32)
    return Evidence(
      block_ids=jnp.zeros(1, jnp.int32),
      block_emb=jnp.zeros((1, self.config.retriever_proj_size)),
      joint=bert.make_inputs(tokens),
      block_mask=tokens,
    )


def _answer_ids(
  joint_ids: Array, output: RealmReaderOutput, max_width: int
) -> Array:
  """The wordpieces of the best span, [..., K, L] -> [..., max_width]; -1 where
  it is shorter."""
  block = output.block_idx[..., None, None]
  row = jnp.take_along_axis(jnp.asarray(joint_ids), block, axis=-2)[..., 0, :]
  at = output.start_pos[..., None] + jnp.arange(max_width)
  ids = jnp.take_along_axis(row, jnp.minimum(at, row.shape[-1] - 1), axis=-1)
  return jnp.where(at <= output.end_pos[..., None], ids, -1)
