"""From arrays of a pass to the blocks and words that an explanation shows."""

import re

import numpy as np

from realm_jax.data.blocks import BlockStore
from realm_jax.data.tokenizer import Tokenizer
from realm_jax.retrieval import evidence, weighing
from realm_jax.serve.explanation import Block, Word


def blocks_read(
  row: weighing.EachRead, store: BlockStore, tokenizer: Tokenizer
) -> list[Block]:
  """The blocks that were read for one question, each with its best span."""
  reading = row.reading
  ids = reading.block_ids[: len(reading.log_probs)].tolist()
  shown = []
  for slot, block in enumerate(ids):
    if np.isneginf(reading.log_probs[slot]):
      continue
    start, end = int(row.start[slot]), int(row.end[slot])
    body = store.body_ids(block) if block >= 0 else []
    span, words = None, ""
    if end < len(body):
      span = evidence.span_of(store, tokenizer, block, start, end)
      words = tokenizer.decode(body[start : end + 1])
    title, text = _title_and_text(store, block)
    shown.append(
      Block(
        block_id=block,
        title=title,
        text=text,
        p=float(np.exp(reading.log_probs[slot])),
        answer=text[slice(*span)] if span else words,
        answer_p=float(np.exp(row.score[slot])),
        span=span,
        chosen=slot == int(reading.block) and end < len(body),
      )
    )
  return shown


def blocks_filled(
  row: weighing.EachFilled,
  masks: int,
  answer: str,
  store: BlockStore,
  tokenizer: Tokenizer,
) -> list[Block]:
  """The blocks that a question's masks were filled in with; see Block.

  Args:
    row: of the question.
    masks: how many it has.
    answer: what all blocks together fill in.
    store, tokenizer: of the run.
  """
  shown = []
  for slot, block in enumerate(row.block_ids.tolist()):
    if np.isneginf(row.log_probs[slot]):
      continue
    title, text = _title_and_text(store, block)
    shown.append(
      Block(
        block_id=block,
        title=title,
        text=text,
        p=float(np.exp(row.log_probs[slot])),
        answer=tokenizer.decode(row.block_word_ids[slot, :masks]),
        answer_p=float(np.exp(row.block_score[slot])),
        p_of_answer=float(np.exp(row.answer_score[slot])),
        span=find_words(answer, text),
      )
    )
  return shown


def words_filled(
  row: weighing.EachFilled, masks: int, tokenizer: Tokenizer
) -> tuple[tuple[Word, ...], ...]:
  """The best words of each of a question's masks."""
  return tuple(
    tuple(
      Word(text, float(np.exp(p)), float(np.exp(alone)))
      for text, p, alone in zip(
        tokenizer.tokens(row.word_ids[m]),
        row.word_log_probs[m],
        row.null_log_probs[m],
        strict=True,
      )
    )
    for m in range(masks)
  )


def _title_and_text(store: BlockStore, block: int) -> tuple[str, str]:
  """Of a block; the null block has neither."""
  return (store.title(block), store.text(block)) if block >= 0 else ("", "")


def find_words(words: str, text: str) -> tuple[int, int] | None:
  """Where whole words stand in a text first, in any case; None: nowhere."""
  if not words:
    return None
  found = re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE)
  return found and found.span()
