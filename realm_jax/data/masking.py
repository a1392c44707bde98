"""Which wordpieces of a text are hidden, and the targets they become.

As the original's featurizer does it: what is chosen becomes [MASK], without
BERT's 80/10/10 (a tenth of the choices kept, another replaced at random), so
that the ways to choose differ in nothing but the choice; targets beyond
max_masks are cut, so those wordpieces stay hidden but bring no loss.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from realm_jax import types
from realm_jax.config import InputError
from realm_jax.data import features
from realm_jax.data.tokenizer import Tokenizer

KINDS = ("salient", "span", "uniform")


@dataclasses.dataclass(frozen=True)
class Masking:
  """How a text's masks are chosen (paper, sections 3.4 and 4.4).

  Attributes:
    kind: "salient": one of the text's salient spans. "span": as many wordpieces
      in a row as one of them has, anywhere in the text. "uniform": wordpieces
      here and there, as BERT's.
    share: of the text's wordpieces, for "uniform": at least one, and no more
      than max_masks.

  Raises:
    InputError: no such kind, or a share of nothing.
  """

  kind: str = "salient"
  share: float = 0.15

  def __post_init__(self):
    if self.kind not in KINDS:
      raise InputError(
        f"config masking={self.kind!r}: wanted one of {', '.join(KINDS)}"
      )
    if not 0 < self.share <= 1:
      raise InputError(
        f"config mask_share={self.share}: wanted a share over 0 and at most 1"
      )


SALIENT = Masking()


class Masked(NamedTuple):
  """Masked queries: query [B, Q]; positions, targets, mask [B, M]."""

  query: types.Inputs
  positions: np.ndarray
  targets: np.ndarray
  mask: np.ndarray


def mask_spans(
  token_ids: np.ndarray,
  lens: np.ndarray,
  spans: np.ndarray,
  *,
  query_len: int,
  max_masks: int,
  tokenizer: Tokenizer,
) -> Masked:
  """Hides one span of each text.

  Args:
    token_ids: [B, Q - 2] wordpieces, padded.
    lens: [B] wordpieces of each text.
    spans: [B, 2] first and last + 1 wordpiece of the span; it ends within
      the first Q - 2.
    query_len: Q.
    max_masks: M.
    tokenizer: names the specials.

  Returns:
    Masked; a position is the wordpiece's index + 1 for the [CLS] before it.
  """
  at = np.arange(token_ids.shape[1])
  hidden = (at >= spans[:, :1]) & (at < spans[:, 1:])
  return _hide(token_ids, lens, hidden, query_len, max_masks, tokenizer)


def move_spans(
  spans: np.ndarray, lens: np.ndarray, uniform: np.ndarray
) -> np.ndarray:
  """Spans [B, 2] of the same lengths, each anywhere in its text.

  Args:
    spans: [B, 2], see mask_spans.
    lens: [B] wordpieces of each text that are seen.
    uniform: [B] in [0, 1).
  """
  length = spans[:, 1] - spans[:, 0]
  start = (uniform * (lens - length + 1)).astype(spans.dtype)
  return np.stack([start, start + length], axis=1)


def mask_anywhere(
  token_ids: np.ndarray,
  lens: np.ndarray,
  uniform: np.ndarray,
  *,
  share: float,
  query_len: int,
  max_masks: int,
  tokenizer: Tokenizer,
) -> Masked:
  """Hides single wordpieces of each text, all as likely.

  Args:
    uniform: [B] in [0, 1): row b is a function of this number alone.
    share: of the wordpieces that are seen, rounded; at least one, at most M.
    token_ids, lens, query_len, max_masks, tokenizer: as mask_spans'.
  """
  width = token_ids.shape[1]
  seeds = (uniform * (1 << 53)).astype(np.int64)
  noise = np.stack([np.random.default_rng(s).random(width) for s in seeds])
  seen = np.minimum(lens, width)
  noise[np.arange(width) >= seen[:, None]] = 2.0  # after all others
  count = np.clip(np.round(share * seen), 1, max_masks)
  rank = noise.argsort(axis=1).argsort(axis=1)
  hidden = rank < count[:, None]
  return _hide(token_ids, lens, hidden, query_len, max_masks, tokenizer)


def _hide(token_ids, lens, hidden, query_len, max_masks, tokenizer) -> Masked:
  """What is hidden [B, Q - 2], and its first M wordpieces as targets."""
  ids = np.where(hidden, tokenizer.mask_id, token_ids)
  # hidden wordpieces first, in their order
  index = np.argsort(~hidden, axis=1, kind="stable")[:, :max_masks]
  mask = np.take_along_axis(hidden, index, axis=1)
  targets = np.take_along_axis(token_ids, index, axis=1)
  return Masked(
    query=features.query_rows(ids, lens, query_len, tokenizer),
    positions=_padded((index + 1) * mask, max_masks),
    targets=_padded(targets * mask, max_masks),
    mask=_padded(mask, max_masks),
  )


def _padded(x: np.ndarray, width: int) -> np.ndarray:
  """[B, w] -> int32 [B, width], 0 at the end."""
  return np.pad(x, ((0, 0), (0, width - x.shape[1]))).astype(np.int32)
