"""From block ids to what the reader reads: texts, tokens, answers.

The reference's RealmRetriever: it fetches the texts of the blocks found, joins
each with its question, and marks where an answer's wordpieces stand. All on
the host; the training step has its own way (candidates.py).
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from realm_jax.config import InputError
from realm_jax.data.blocks import BlockStore
from realm_jax.data.realm_tokenizer_fast import RealmTokenizerFast
from realm_jax.formats import block_records as formats

RECORDS = "block_records.npy"
Answers = Sequence[Sequence[int]]


class StoreRecords:
  """The texts of a block store as block records; nothing is copied."""

  def __init__(self, store: BlockStore):
    self._store = store

  def __len__(self) -> int:
    return len(self._store)

  def __getitem__(self, block: int) -> bytes:
    if not 0 <= block < len(self):
      raise IndexError(block)
    return self._store.text(block).encode()


class RealmRetriever:
  """Outputs the evidence blocks, whether they hold an answer, and where.

  Attributes:
    block_records: the text of each block as UTF-8 bytes, by its id.
    tokenizer: RealmTokenizer or RealmTokenizerFast.
  """

  def __init__(self, block_records: Sequence[bytes], tokenizer: Any):
    self.block_records = block_records
    self.tokenizer = tokenizer

  def __call__(
    self,
    retrieved_block_ids: np.ndarray,
    question_input_ids: np.ndarray,
    answer_ids: Answers | Sequence[Answers] | None,
    max_length: int | None = None,
    return_tensors: str | None = "np",
  ):
    """Joins questions with their blocks: `[CLS] question [SEP] block [SEP]`.

    Args:
      retrieved_block_ids: [N] of one question, or [B, N].
      question_input_ids: [1, T], or [B, T], with or without padding.
      answer_ids: wordpieces of each answer, or such a list for each question;
        None where they are not known.
      max_length: wordpieces a joint sequence may have; longer ones are cut.
      return_tensors: "np", or None for lists.

    Returns:
      has_answers [N], start_pos [N, A] and end_pos [N, A] (inclusive) as lists
      padded with -1, all None without answers; and the joint sequences as a
      mapping of [N, L]: input_ids, token_type_ids, attention_mask,
      special_tokens_mask. For B questions, [B, N] and so on.

    Raises:
      InputError: no such block, or as many questions as there are not.
    """
    block_ids = np.asarray(retrieved_block_ids)
    one = block_ids.ndim < 2
    questions = self._questions(np.asarray(question_input_ids), block_ids, one)
    block_ids = block_ids.reshape(len(questions), -1)
    joint = self.tokenizer(
      [q for q in questions for _ in range(block_ids.shape[1])],
      [self._text(i) for i in block_ids.flat],
      padding=True,
      truncation=True,
      return_special_tokens_mask=True,
      max_length=max_length,
    )
    labels = (None, None, None)
    if answer_ids is not None:
      answers = [answer_ids] if one else answer_ids
      labels = self._labels(joint, answers, block_ids.shape)
    if one:
      labels = [x and x[0] for x in labels]
    else:
      for name, rows in joint.items():
        joint[name] = _split(rows, len(questions))
    return (*labels, joint.convert_to_tensors(return_tensors))

  def block_has_answer(
    self, concat_inputs: Any, answer_ids: Answers
  ) -> tuple[list[bool], list[list[int]], list[list[int]]]:
    """Finds answers between the two [SEP]s of joint sequences.

    Args:
      concat_inputs: a mapping, input_ids [N, L].
      answer_ids: wordpieces of each answer.

    Returns:
      has_answers [N], start_pos [N, A], end_pos [N, A]: the answers in order,
      then -1 up to the longest row.
    """
    ids = np.asarray(concat_inputs["input_ids"])
    found = find_answers(ids, answer_ids, self.tokenizer.sep_token_id)
    has, start, end = _padded([found])
    return has[0], start[0], end[0]

  @classmethod
  def from_pretrained(
    cls,
    path: str | os.PathLike,
    block_records: str | os.PathLike | None = None,
    tokenizer: Any = None,
  ) -> "RealmRetriever":
    """Reads a retriever from a directory.

    Args:
      path: a directory with a tokenizer's files and block_records.npy.
      block_records: records elsewhere: .npy, JSONL, TFRecord, or the directory
        of a block store.
      tokenizer: used in place of that of the directory.

    Raises:
      InputError: a file is missing or broken.
    """
    path = pathlib.Path(path)
    records = read_records(block_records or path / RECORDS)
    return cls(records, tokenizer or RealmTokenizerFast.from_pretrained(path))

  def save_pretrained(self, directory: str | os.PathLike) -> None:
    """Writes block_records.npy and the tokenizer's files, as the reference."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    formats.write_block_records(directory / RECORDS, self.block_records)
    self.tokenizer.save_pretrained(directory)

  def _questions(self, ids, block_ids, one) -> list[str]:
    """The questions' texts; the reference reads the first row alone."""
    rows = np.atleast_2d(ids)
    rows = rows[:1] if one else rows
    if not one and len(rows) != len(block_ids):
      raise InputError(
        f"{len(rows)} questions, but blocks for {len(block_ids)} of them"
      )
    return [
      self.tokenizer.decode(row, skip_special_tokens=True) for row in rows
    ]

  def _text(self, block: int) -> str:
    num_blocks = len(self.block_records)
    if not 0 <= block < num_blocks:
      raise InputError(
        f"block {block}: there are {num_blocks} block records: take the"
        " records that the index was made of"
      )
    record = self.block_records[int(block)]
    return record if isinstance(record, str) else record.decode()

  def _labels(self, joint, answers, shape):
    """has_answers, start_pos, end_pos of B questions with N blocks each."""
    if len(answers) != shape[0]:
      raise InputError(
        f"answer_ids of {len(answers)} questions, but there are {shape[0]}:"
        " give a list of answers for each question"
      )
    ids = np.asarray(joint["input_ids"]).reshape(*shape, -1)
    sep = self.tokenizer.sep_token_id
    return _padded(
      [find_answers(i, a, sep) for i, a in zip(ids, answers, strict=True)]
    )


def read_records(path: str | os.PathLike) -> Sequence[bytes]:
  """Block records of a file, or of a block store's directory."""
  path = pathlib.Path(path)
  if path.is_dir():
    return StoreRecords(BlockStore(path))
  return formats.read_block_records(path)


def find_answers(
  input_ids: np.ndarray, answers: Answers, sep_id: int
) -> list[list[tuple[int, int]]]:
  """Where answers stand between the first two [SEP]s of each row.

  Args:
    input_ids: [N, L] joint sequences.
    answers: wordpieces of each answer.
    sep_id: [SEP].

  Returns:
    For each row (start, end), end inclusive, by answer, then by place.

  Raises:
    InputError: an answer has no wordpiece, or a row has no two [SEP]s.
  """
  at = np.arange(input_ids.shape[1])
  seps = np.cumsum(input_ids == sep_id, axis=1)  # [N, L] how many up to here
  if not (seps[:, -1] >= 2).all():
    raise InputError("a joint sequence without two [SEP]: nothing to search in")
  inside = (seps == 1) & (input_ids != sep_id)
  found: list[list[tuple[int, int]]] = [[] for _ in input_ids]
  for answer in answers:
    if not len(answer):
      raise InputError("answer_ids: an answer without wordpieces")
    hit = inside & (at + len(answer) <= at.size)
    for j, wordpiece in enumerate(answer):
      hit[:, : at.size - j] &= input_ids[:, j:] == wordpiece
    for row, start in np.argwhere(hit).tolist():
      found[row].append((start, start + len(answer) - 1))
  return found


def _padded(found: list[list[list[tuple[int, int]]]]):
  """[B][N] lists of spans -> has_answers, starts, ends, padded with -1."""
  most = max((len(row) for rows in found for row in rows), default=0)
  fill = [(-1, -1)] * most
  full = [[(row + fill)[:most] for row in rows] for rows in found]
  return (
    [[bool(row) for row in rows] for rows in found],
    [[[start for start, _ in row] for row in rows] for rows in full],
    [[[end for _, end in row] for row in rows] for rows in full],
  )


def _split(rows: Sequence, parts: int) -> list:
  """[B * N, ...] -> [B, N, ...]."""
  n = len(rows) // parts
  return [rows[i * n : (i + 1) * n] for i in range(parts)]
