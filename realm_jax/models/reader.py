"""The reader of open-domain QA: which span of which block answers.

BERT over `[CLS] question [SEP] body [SEP]`, then a score for every span of up
to `max_span_width` wordpieces from its two ends (orqa_model.py; paper, section
3.2): dense, start + end, ReLU, LayerNorm, dense.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from realm_jax.config import InputError, RealmConfig
from realm_jax.models import arguments, bert, objective, precision
from realm_jax.models.unpadded import Layout
from realm_jax.types import Array, Inputs, RealmReaderOutput


def span_candidates(length: int, max_width: int) -> tuple[Array, Array]:
  """Starts and ends (inclusive) of all spans, the narrow first, [S] each."""
  widths = range(min(max_width, length))
  starts = [np.arange(length - w) for w in widths]
  ends = [np.arange(w, length) for w in widths]
  return np.concatenate(starts), np.concatenate(ends)


class SpanHead(nn.Module):
  """Scores spans."""

  config: RealmConfig

  @nn.compact
  def __call__(self, x: Array, block_mask: Array) -> Array:
    """x [R, T, D], block_mask [R, T] -> span logits [R, S].

    A span one end of which is no body wordpiece gets the lowest finite score.
    """
    c = self.config
    init = bert.kernel_init(c)
    dense = precision.Dense(
      2 * c.span_hidden_size, init, name="dense_intermediate"
    )
    start, end = jnp.split(dense(x), 2, axis=-1)  # [R, T, span_hidden]
    starts, ends = span_candidates(x.shape[1], c.max_span_width)
    hidden = nn.relu(start[:, starts] + end[:, ends])  # [R, S, span_hidden]
    dtype = precision.compute_type(c)
    norm = precision.layer_norm(c.reader_layer_norm_eps, "norm", dtype)
    output = precision.Dense(1, init, jnp.float32, name="dense_output")
    logits = output(norm(hidden))[..., 0]
    inside = (block_mask[:, starts] > 0) & (block_mask[:, ends] > 0)
    lowest = jnp.finfo(logits.dtype).min
    return logits + jnp.where(inside, 0.0, lowest)


class RealmReader(nn.Module):
  """Span reader over the first `reader_beam_size` blocks."""

  config: RealmConfig

  def setup(self):
    self.realm = bert.Bert(self.config)
    self.qa_outputs = SpanHead(self.config)

  def span_logits(
    self,
    joint: Inputs,
    block_mask: Array,
    read_positions: Array,
    layout: Layout | None = None,
    deterministic: bool = True,
  ) -> Array:
    """Scores spans of joint sequences.

    Args:
      joint: [R, L], the tokens of each its first places.
      block_mask: [R, L] 1 at the wordpieces of the body.
      read_positions: [R, T] columns among which spans are looked for, in a
        row.
      layout: as Bert's; no span ends at what it cuts.
      deterministic: no dropout.

    Returns:
      [R, S] with S the spans of T positions (span_candidates).
    """
    x, _, _ = self.realm(
      joint,
      read_positions=read_positions,
      layout=layout,
      gapless=True,
      deterministic=deterministic,
    )
    if layout:
      block_mask = block_mask & layout.mask
    mask = jnp.take_along_axis(block_mask, read_positions, axis=1)
    return self.qa_outputs(x, mask)

  def __call__(
    self,
    input_ids: Array | None = None,
    attention_mask: Array | None = None,
    token_type_ids: Array | None = None,
    position_ids: Array | None = None,
    head_mask: Array | None = None,
    inputs_embeds: Array | None = None,
    relevance_score: Array | None = None,
    block_mask: Array | None = None,
    start_positions: Array | None = None,
    end_positions: Array | None = None,
    has_answers: Array | None = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    *,
    deterministic: bool = True,
  ) -> RealmReaderOutput | tuple:
    """Reads the blocks of a question, as the reference's forward, or of many.

    With a leading axis B on every argument, B questions are read; N blocks
    were found for each, of which the first K = min(N, reader_beam_size) are
    read.

    Args:
      input_ids: [K, L] or [B, K, L]; the other sequences alike (see
        RealmEmbedder).
      relevance_score: [N] scores of the blocks found.
      block_mask: [N, L] or [K, L] 1 at the block's wordpieces.
      start_positions, end_positions: [N, A] (or [N]) ends of the answers in
        each block, -1 where there is none.
      has_answers: [N] whether a block holds an answer.

    Raises:
      InputError: relevance_score, block_mask or token_type_ids is missing, the
        sequences are shorter than max_span_width, or not K.
    """
    c = self.config
    _check_given(relevance_score, block_mask, token_type_ids, c.max_span_width)
    output_attentions, output_hidden_states = arguments.wanted(
      c, output_attentions, output_hidden_states
    )
    sequences = (
      input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds
    )  # fmt: skip
    found = (relevance_score, block_mask)
    labels = (start_positions, end_positions, has_answers)
    if any(x is None for x in labels):
      labels = None
    given = (sequences, found, labels)
    ids_like = inputs_embeds[..., 0] if input_ids is None else input_ids
    one = jnp.ndim(ids_like) == 2
    if one:  # a batch of one
      given = jax.tree.map(lambda x: jnp.asarray(x)[None], given)
    output = self._read(*given, head_mask, deterministic)
    if one:
      output = jax.tree.map(lambda x: x[0] if x.ndim else x, output)
    if not output_hidden_states:
      output = output.replace(hidden_states=None)
    if not output_attentions:
      output = output.replace(attentions=None)
    return arguments.returned(c, output, return_dict)

  def _read(self, sequences, found, labels, head_mask, deterministic):
    """The batched forward: RealmReaderOutput of [B, ...]."""
    c = self.config
    *ids, embeds = (arguments.merge_first_axes(x) for x in sequences)
    x, states, attentions = self.realm(
      arguments.checked_inputs(c, *ids, embeds),
      head_mask=head_mask,
      inputs_embeds=embeds,
      deterministic=deterministic,
    )  # [B * K, L, D]
    score, block_mask = map(jnp.asarray, found)  # [B, N], [B, N or K, L]
    block_mask = block_mask[:, : c.reader_beam_size]
    b, k = score[:, : c.reader_beam_size].shape
    _check_rows(len(x), block_mask.shape[1], score, k)
    logits = self.qa_outputs(x, arguments.merge_first_axes(block_mask))
    logits = logits.reshape(b, k, -1) + score[:, :k, None]  # [B, K, S]
    starts, ends = span_candidates(x.shape[1], c.max_span_width)
    block, span = best_span(logits)
    states, attentions = jax.tree.map(
      lambda v: v.reshape(b, k, *v.shape[1:]), (states, attentions)
    )
    output = RealmReaderOutput(
      block_idx=block,
      candidate=span,
      start_pos=jnp.asarray(starts)[span],
      end_pos=jnp.asarray(ends)[span],
      hidden_states=states,
      attentions=attentions,
    )
    if labels is None:
      return output
    first, last = (
      (x if x.ndim == 3 else x[..., None])[:, :k]
      for x in map(jnp.asarray, labels[:2])
    )  # [B, K, A]
    gold = gold_spans(first, last, starts, ends)
    has_answers = jnp.asarray(labels[2], bool)
    losses = qa_losses(score, has_answers, logits, gold)
    return output.replace(
      loss=(losses[0] + losses[1]).mean(),
      retriever_loss=losses[0].mean(),
      reader_loss=losses[1].mean(),
      retriever_correct=has_answers,
      reader_correct=gold,
    )


def _check_given(relevance_score, block_mask, token_type_ids, max_span_width):
  for name, value in (
    ("relevance_score", relevance_score),
    ("block_mask", block_mask),
    ("token_type_ids", token_type_ids),
  ):
    if value is None:
      raise InputError(f"the reader needs {name}")
  length = jnp.shape(token_type_ids)[-1]
  if length < max_span_width:
    raise InputError(
      f"sequences of {length} tokens are shorter than config"
      f" max_span_width={max_span_width}"
    )


def _check_rows(num_sequences, num_masks, score, k):
  b, n = score.shape
  if (num_sequences, num_masks) != (b * k, k):
    raise InputError(
      f"{num_sequences} sequences and {num_masks} block masks a question, but"
      f" {b} x {n} relevance scores: wanted the first {k} blocks of each"
      " question (config reader_beam_size)"
    )


def best_span(span_logits: Array) -> tuple[Array, Array]:
  """The best block and the best span of each question, [B, K, S] -> [B], [B]."""
  block = span_logits.max(-1).argmax(-1)
  return block, span_logits.max(-2).argmax(-1)


def gold_spans(
  answer_starts: Array, answer_ends: Array, starts: Array, ends: Array
) -> Array:
  """Which candidate spans are answers.

  Args:
    answer_starts: [B, K, A] first wordpiece of answers in each block; -1: none.
    answer_ends: [B, K, A] last wordpiece, inclusive.
    starts: [S] of the candidate spans; ends: [S].

  Returns:
    [B, K, S] bool.
  """
  same_start = answer_starts[..., None] == starts  # [B, K, A, S]
  same_end = answer_ends[..., None] == ends
  return (same_start & same_end).any(-2)


def qa_losses(
  relevance_score: Array,
  has_answer: Array,
  span_logits: Array,
  is_gold: Array,
) -> tuple[Array, Array]:
  """The two losses of a question (orqa_model.py).

  Args:
    relevance_score: [B, N] of the blocks the searcher found.
    has_answer: [B, N] bool.
    span_logits: [B, K, S] of the blocks read, their relevance score included.
    is_gold: [B, K, S] bool.

  Returns:
    Retriever loss [B] over blocks, reader loss [B] over all spans of all
    blocks; 0 where no block, no span is right.
  """
  batch = span_logits.shape[0]
  return (
    objective.marginal_log_loss(relevance_score, has_answer),
    objective.marginal_log_loss(
      span_logits.reshape(batch, -1), is_gold.reshape(batch, -1)
    ),
  )
