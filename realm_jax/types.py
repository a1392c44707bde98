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


@struct.dataclass
class RealmEmbedderOutput:
  """projected_score [R, P]; hidden_states, attentions per layer or None."""

  projected_score: Array
  hidden_states: Any = None
  attentions: Any = None


@struct.dataclass
class RealmScorerOutput:
  """relevance_score [B, K], query_score [B, P], candidate_score [B, K, P]."""

  relevance_score: Array
  query_score: Array
  candidate_score: Array


@struct.dataclass
class RealmEncoderOutput:
  """Masked-LM output: loss () or None, logits [R, T, V]."""

  loss: Array | None
  logits: Array
  hidden_states: Any = None
  attentions: Any = None


@struct.dataclass
class RealmReaderOutput:
  """Span reader output; fields as in the reference (losses are None without
  labels). block_idx, candidate, start_pos, end_pos name the best span."""

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
class RealmForOpenQAOutput:
  """reader_output: RealmReaderOutput; predicted_answer_ids [B, W]."""

  reader_output: RealmReaderOutput
  predicted_answer_ids: Array
