"""Batches and outputs as structs, and THE legend of dimension letters.

Every shape comment, docstring and einsum of the project uses these letters:

  B  queries in a batch            K  candidates of a query, slot 0 = null block
  Q  query length (wordpieces)     C  block length: [CLS] title [SEP] body [SEP]
  L  joint length, L = Q + body    M  masked positions of a query
  V  vocabulary size               D  hidden size
  H  attention heads               P  projected size of the retriever
  N  blocks in the index           S  spans the reader scores in one sequence
  A  answers of a question         W  wordpieces of an answer
  R  rows of a flattened batch     T  sequence length where none of the above
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import struct

Array = jax.Array | np.ndarray


@struct.dataclass
class Inputs:
  """Token sequences as BERT takes them.

  Attributes:
    input_ids: [R, T] int32 wordpieces, specials included, padded with pad_id.
    attention_mask: [R, T] 1 where there is a token, 0 on padding.
    token_type_ids: [R, T] segment, 0 or 1.
    position_ids: [R, T] index into the position table; None = 0, 1, 2, ...
  """

  input_ids: Array
  attention_mask: Array
  token_type_ids: Array
  position_ids: Array | None = None


@struct.dataclass
class BlockTokens:
  """Tokenised blocks: title and body wordpieces in one row, no specials.

  Attributes:
    token_ids: [N, C-3] uint16 or int32, title then body, padded with pad_id.
    title_lens: [N] int32, wordpieces of the title (at most C-3).
    lens: [N] int32, wordpieces of title and body together (at most C-3).
  """

  token_ids: Array
  title_lens: Array
  lens: Array

  @property
  def num_rows(self) -> int:
    """N."""
    return self.lens.shape[0]


@struct.dataclass
class IctBatch:
  """Inverse cloze task: row b of `block` is the positive of row b of `query`.

  Attributes:
    query: [B, Q] `[CLS] sentence [SEP]`.
    block: [B, C] `[CLS] title [SEP] body [SEP]`.
    example_ids: [B] int64, named when a loss is not finite.
  """

  query: Inputs
  block: Inputs
  example_ids: Array


@struct.dataclass
class PretrainBatch:
  """Masked queries of REALM pre-training.

  Attributes:
    query: [B, Q] `[CLS] masked text [SEP]`.
    mlm_positions: [B, M] int32 index of each mask in the query, 0 on padding.
    mlm_targets: [B, M] int32 the wordpiece that was there.
    mlm_mask: [B, M] 1 where there is a masked wordpiece.
    own_block: [B] int32 block the text comes from (the trivial candidate, never
      shown to the reader), -1 where the text is in no block.
    gold_block: [B] int32 a block known to hold the evidence, -1 if unknown.
      Only evaluation and the encoder's warm start read it.
    example_ids: [B] int64.
  """

  query: Inputs
  mlm_positions: Array
  mlm_targets: Array
  mlm_mask: Array
  own_block: Array
  gold_block: Array
  example_ids: Array


@struct.dataclass
class QaBatch:
  """Questions with their answers.

  Attributes:
    question: [B, Q] `[CLS] question [SEP]`.
    answer_ids: [B, A, W] int32 wordpieces of each answer, padded with -1.
    answer_lens: [B, A] int32, 0 where there is no answer (or it is longer
      than W: such an answer can't be matched).
    example_ids: [B] int64.
  """

  question: Inputs
  answer_ids: Array
  answer_lens: Array
  example_ids: Array


class Output:
  """What the outputs of all models can do, as the reference's."""

  def to_tuple(self) -> tuple:
    """The values that are there, in the reference's order."""
    return tuple(
      value
      for field in dataclasses.fields(self)
      if (value := getattr(self, field.name)) is not None
    )

  def __getitem__(self, key: str | int | slice) -> Any:
    """output["loss"], or output[0] of `to_tuple`."""
    return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]


@struct.dataclass
class RealmEmbedderOutput(Output):
  """projected_score [R, P]; hidden_states, attentions per layer or None."""

  projected_score: Array
  hidden_states: Any = None
  attentions: Any = None


@struct.dataclass
class RealmScorerOutput(Output):
  """relevance_score [B, K], query_score [B, P], candidate_score [B, K, P]."""

  relevance_score: Array
  query_score: Array
  candidate_score: Array


@struct.dataclass
class RealmEncoderOutput(Output):
  """Masked-LM output: loss () or None, logits [R, T, V]."""

  loss: Array | None
  logits: Array
  hidden_states: Any = None
  attentions: Any = None


@struct.dataclass
class RealmReaderOutput(Output):
  """What the reader makes of one question, or of B (then [B, ...] but for the
  losses).

  Attributes:
    loss, retriever_loss, reader_loss: (), means over questions; None without
      labels.
    retriever_correct: [N] whether a block found holds an answer.
    reader_correct: [K, S] whether a span is one.
    block_idx, candidate: () the best block, the best span.
    start_pos, end_pos: () its first and last wordpiece in the sequence.
    hidden_states, attentions: of each layer, [K, L, D] and [K, H, L, L].
  """

  loss: Array | None = None
  retriever_loss: Array | None = None
  reader_loss: Array | None = None
  retriever_correct: Array | None = None
  reader_correct: Array | None = None
  block_idx: Array | None = None
  candidate: Array | None = None
  start_pos: Array | None = None
  end_pos: Array | None = None
  hidden_states: Any = None
  attentions: Any = None


@struct.dataclass
class Evidence:
  """What search found for one question, or for B (then [B, ...]).

  Attributes:
    block_ids: [N] the blocks found, best first.
    block_emb: [N, P] their embeddings in the index.
    joint: [K, L] `[CLS] question [SEP] block [SEP]`, the first K = min(N,
      reader_beam_size) blocks.
    block_mask: [K, L] 1 at the wordpieces of the block.
    has_answers: [N] whether a block holds an answer; None without answers.
    start_positions, end_positions: [N, A] where in the joint sequence, -1 for
      none.
  """

  block_ids: Array
  block_emb: Array
  joint: Inputs
  block_mask: Array
  has_answers: Array | None = None
  start_positions: Array | None = None
  end_positions: Array | None = None


@struct.dataclass
class RealmForOpenQAOutput(Output):
  """reader_output, and the answer's wordpieces: predicted_answer_ids [W] of
  one question; of B questions [B, W], padded with -1."""

  reader_output: RealmReaderOutput
  predicted_answer_ids: Array
