"""The reader of open-domain QA: which span of which block answers.

BERT over `[CLS] question [SEP] body [SEP]`, then a score for every span of up
to `max_span_width` wordpieces from its two ends (orqa_model.py; paper, section
3.2): dense, start + end, ReLU, LayerNorm, dense.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from realm_jax.config import RealmConfig
from realm_jax.models import bert, objective
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
    dense = nn.Dense(
      2 * c.span_hidden_size, kernel_init=init, name="dense_intermediate"
    )
    start, end = jnp.split(dense(x), 2, axis=-1)  # [R, T, span_hidden]
    starts, ends = span_candidates(x.shape[1], c.max_span_width)
    hidden = nn.relu(start[:, starts] + end[:, ends])  # [R, S, span_hidden]
    hidden = bert.layer_norm(c.reader_layer_norm_eps, "norm")(hidden)
    logits = nn.Dense(1, kernel_init=init, name="dense_output")(hidden)[..., 0]
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
    deterministic: bool = True,
  ) -> Array:
    """Scores spans of joint sequences.

    Args:
      joint: [R, L].
      block_mask: [R, L] 1 at the wordpieces of the body.
      read_positions: [R, T] columns among which spans are looked for, in a
        row.
      deterministic: no dropout.

    Returns:
      [R, S] with S the spans of T positions (span_candidates).
    """
    x, _, _ = self.realm(
      joint, read_positions=read_positions, deterministic=deterministic
    )
    mask = jnp.take_along_axis(block_mask, read_positions, axis=1)
    return self.qa_outputs(x, mask)

  def __call__(
    self,
    input_ids: Array | None = None,
    *,
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
    output_attentions: bool = False,
    output_hidden_states: bool = False,
    deterministic: bool = True,
  ) -> RealmReaderOutput:
    """Reads the blocks of one question, as the reference's forward.

    Args:
      input_ids: [K, L], K = reader_beam_size; the other sequences alike.
      relevance_score: [searcher_beam_size] scores of the blocks found.
      block_mask: [K, L] 1 at body wordpieces.
      start_positions, end_positions: [searcher_beam_size, A] ends of the
        answers in each block, -1 where none.
      has_answers: [searcher_beam_size] whether a block holds an answer.

    Raises:
      ValueError: relevance_score, block_mask or token_type_ids is missing, or
        the sequences are shorter than max_span_width.
    """
    width = self.config.max_span_width
    _check_given(relevance_score, block_mask, token_type_ids, width)
    inputs = bert.make_inputs(
      input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds
    )
    x, states, attentions = self.realm(
      inputs,
      head_mask=head_mask,
      inputs_embeds=inputs_embeds,
      deterministic=deterministic,
    )
    beam = self.config.reader_beam_size
    score = jnp.asarray(relevance_score)[None]  # [1, N]
    logits = self.qa_outputs(x, jnp.asarray(block_mask)[:beam])
    logits = logits[None] + score[:, :beam, None]  # [1, K, S]
    starts, ends = span_candidates(x.shape[1], width)
    block, span = best_span(logits)
    output = RealmReaderOutput(
      block_idx=block[0],
      candidate=span[0],
      start_pos=jnp.asarray(starts)[span[0]],
      end_pos=jnp.asarray(ends)[span[0]],
      hidden_states=states if output_hidden_states else None,
      attentions=attentions if output_attentions else None,
    )
    if start_positions is None or end_positions is None or has_answers is None:
      return output
    gold = gold_spans(
      jnp.asarray(start_positions)[None, :beam],
      jnp.asarray(end_positions)[None, :beam],
      starts,
      ends,
    )
    retriever_correct = jnp.asarray(has_answers, bool)  # [N]
    losses = qa_losses(score, retriever_correct[None], logits, gold)
    return output.replace(
      loss=(losses[0] + losses[1]).mean(),
      retriever_loss=losses[0].mean(),
      reader_loss=losses[1].mean(),
      retriever_correct=retriever_correct,
      reader_correct=gold[0],
    )


def _check_given(relevance_score, block_mask, token_type_ids, max_span_width):
  for name, value in (
    ("relevance_score", relevance_score),
    ("block_mask", block_mask),
    ("token_type_ids", token_type_ids),
  ):
    if value is None:
      raise ValueError(f"the reader needs {name}")
  if jnp.shape(token_type_ids)[1] < max_span_width:
    raise ValueError(
      f"sequences of {jnp.shape(token_type_ids)[1]} tokens are shorter than"
      f" max_span_width={max_span_width}"
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
