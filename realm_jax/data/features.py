"""Wordpieces to model inputs, in NumPy and a whole batch at a time.

The layouts are the original's (language/realm/featurization.py): a query is
`[CLS] text [SEP]`, a block `[CLS] title [SEP] body [SEP]` with segment 1 on
the body part; an earlier sequence has priority when the length runs out, and
the specials always stay.
"""

from collections.abc import Sequence

import numpy as np

from realm_jax import types
from realm_jax.config import InputError
from realm_jax.data.tokenizer import Tokenizer

Ids = Sequence[int] | np.ndarray


def query_inputs(
  ids: Sequence[Ids], query_len: int, tokenizer: Tokenizer
) -> types.Inputs:
  """Builds `[CLS] text [SEP]` rows from lists of ids, cut to query_len.

  Returns:
    Inputs [B, Q] of int32 arrays.
  """
  check_length("query_len", query_len, 2)
  return query_rows(*pad_rows(ids, query_len - 2), query_len, tokenizer)


def query_rows(
  token_ids: np.ndarray, lens: np.ndarray, query_len: int, tokenizer: Tokenizer
) -> types.Inputs:
  """query_inputs of padded rows: token_ids [B, >= Q - 2], lens [B]."""
  lens = np.minimum(lens, query_len - 2)[:, None]
  at = np.arange(query_len)
  input_ids = np.full((len(token_ids), query_len), tokenizer.pad_id, np.int32)
  input_ids[:, 1:-1] = token_ids[:, : query_len - 2]
  input_ids = np.where(at > lens, tokenizer.pad_id, input_ids)
  input_ids[at == lens + 1] = tokenizer.sep_id
  input_ids[:, 0] = tokenizer.cls_id
  mask = (at < lens + 2).astype(np.int32)
  return types.Inputs(input_ids, mask, np.zeros_like(mask))


def block_inputs(
  title_ids: Sequence[Ids],
  body_ids: Sequence[Ids],
  block_len: int,
  tokenizer: Tokenizer,
) -> types.Inputs:
  """Builds `[CLS] title [SEP] body [SEP]` rows from lists of ids.

  Returns:
    Inputs [B, C] of int32 arrays.
  """
  check_length("block_len", block_len, 3)
  rows = [[*t, *b] for t, b in zip(title_ids, body_ids, strict=True)]
  token_ids, lens = pad_rows(rows, block_len - 3)
  title_lens = np.array([len(t) for t in title_ids], np.int32)
  return block_rows(token_ids, title_lens, lens, block_len, tokenizer)


def block_rows(
  token_ids: np.ndarray,
  title_lens: np.ndarray,
  lens: np.ndarray,
  block_len: int,
  tokenizer: Tokenizer,
) -> types.Inputs:
  """block_inputs of rows as BlockTokens keeps them.

  Args:
    token_ids: [B, >= C - 3] title, then body.
    title_lens: [B] wordpieces of the title.
    lens: [B] wordpieces of title and body together.
    block_len: C.
    tokenizer: names the specials.
  """
  lens = np.minimum(lens, block_len - 3)[:, None]
  title_lens = np.minimum(title_lens[:, None], lens)
  at = np.arange(block_len)
  in_title = (at >= 1) & (at <= title_lens)
  in_body = (at >= title_lens + 2) & (at <= lens + 1)
  source = np.where(in_body, at - 2, at - 1)
  source = np.clip(source, 0, token_ids.shape[1] - 1)
  input_ids = np.take_along_axis(token_ids, source, axis=1)
  input_ids = np.where(in_title | in_body, input_ids, tokenizer.pad_id)
  input_ids = input_ids.astype(np.int32)
  input_ids[(at == title_lens + 1) | (at == lens + 2)] = tokenizer.sep_id
  input_ids[:, 0] = tokenizer.cls_id
  mask = (at < lens + 3).astype(np.int32)
  return types.Inputs(
    input_ids, mask, mask * (at >= title_lens + 2).astype(np.int32)
  )


def qa_batch(
  questions: Sequence[Ids],
  answers: Sequence[Sequence[Ids]],
  *,
  query_len: int,
  max_answers: int,
  max_answer_len: int,
  tokenizer: Tokenizer,
  example_ids: Sequence[int] | np.ndarray | None = None,
) -> types.QaBatch:
  """Builds a QaBatch from wordpieces.

  Args:
    questions: ids of each question.
    answers: ids of each answer of each question. The shortest are kept where
      there are more than max_answers; one longer than max_answer_len gets
      length 0, because it can't be matched.
    query_len: Q.
    max_answers: A.
    max_answer_len: W.
    tokenizer: names the specials.
    example_ids: names of the rows, 0, 1, ... by default.
  """
  shape = (len(questions), max_answers, max_answer_len)
  answer_ids = np.full(shape, -1, np.int32)
  answer_lens = np.zeros(shape[:2], np.int32)
  for b, row in enumerate(answers):
    usable = [a for a in row if 0 < len(a) <= max_answer_len]
    for a, ids in enumerate(sorted(usable, key=len)[:max_answers]):
      answer_ids[b, a, : len(ids)] = ids
      answer_lens[b, a] = len(ids)
  if example_ids is None:
    example_ids = np.arange(len(questions))
  return types.QaBatch(
    question=query_inputs(questions, query_len, tokenizer),
    answer_ids=answer_ids,
    answer_lens=answer_lens,
    example_ids=np.asarray(example_ids, np.int64),
  )


def pad_rows(rows: Sequence[Ids], width: int) -> tuple[np.ndarray, np.ndarray]:
  """Lists of ids to ([B, width] int32, lens [B]), cut and filled with 0."""
  lens = np.array([min(len(row), width) for row in rows], np.int32)
  padded = np.zeros((len(rows), width), np.int32)
  for b, row in enumerate(rows):
    padded[b, : lens[b]] = row[:width]
  return padded, lens


def check_length(name: str, value: int, specials: int) -> None:
  """A sequence must have room for a wordpiece beside its specials."""
  if value <= specials:
    raise InputError(
      f"config {name}={value}: wanted more than its {specials} specials"
    )
