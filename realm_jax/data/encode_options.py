"""The options of a call to a tokenizer, and how texts are cut to a length."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from absl import logging

from realm_jax.config import InputError

PADDING = ("longest", "max_length", "do_not_pad")
TRUNCATION = ("longest_first", "only_first", "only_second", "do_not_truncate")
NO_LIMIT = int(1e30)  # model_max_length of a model that has none
_LARGE = int(1e20)


@dataclasses.dataclass(frozen=True)
class EncodeOptions:
  """Keyword arguments of `tokenizer(...)`, with the reference's defaults.

  Attributes:
    add_special_tokens: [CLS] text [SEP], or [CLS] text [SEP] pair [SEP].
    padding: True or "longest" (row of a batch), "max_length", or False or
      "do_not_pad".
    truncation: True or "longest_first" (text of a pair), "only_first",
      "only_second", or False or "do_not_truncate". None is "longest_first"
      where max_length is given and nothing pads to it, else False.
    max_length: in tokens, specials among them; the tokenizer's
      model_max_length if not given.
    stride: tokens that an overflowing row has in common with the one before.
    is_split_into_words: texts are lists of words.
    pad_to_multiple_of: padded lengths are a multiple of it.
    return_tensors: "np" for NumPy arrays, None for lists.
    return_token_type_ids, return_attention_mask: None: those that are in the
      tokenizer's model_input_names.
    return_overflowing_tokens: what was cut; the fast tokenizer returns it as
      more rows, the slow one under "overflowing_tokens".
    return_special_tokens_mask: 1 at special tokens.
    return_offsets_mapping: characters of each token; fast tokenizer only.
    return_length: number of tokens of each row.
    verbose: of no effect.
    truncation_strategy, pad_to_max_length: older names of the reference.
  """

  add_special_tokens: bool = True
  padding: bool | str = False
  truncation: bool | str | None = None
  max_length: int | None = None
  stride: int = 0
  is_split_into_words: bool = False
  pad_to_multiple_of: int | None = None
  return_tensors: str | None = None
  return_token_type_ids: bool | None = None
  return_attention_mask: bool | None = None
  return_overflowing_tokens: bool = False
  return_special_tokens_mask: bool = False
  return_offsets_mapping: bool = False
  return_length: bool = False
  verbose: bool = True
  truncation_strategy: str = "do_not_truncate"
  pad_to_max_length: bool = False

  def resolved(self, tokenizer: Any) -> "EncodeOptions":
    """The same with padding, truncation and max_length decided.

    Raises:
      InputError: unknown value, no pad token, lengths that don't go together.
    """
    padding, truncation = self._padding(), self._truncation()
    max_length = self.max_length
    if max_length is None and tokenizer.model_max_length > _LARGE:
      if padding == "max_length" or truncation != "do_not_truncate":
        logging.log_first_n(
          logging.WARNING,
          "no max_length, and the tokenizer has no model_max_length: texts are"
          " neither cut nor padded to a length",
          1,
        )
      padding = "do_not_pad" if padding == "max_length" else padding
      truncation = "do_not_truncate"
    elif max_length is None:
      if padding == "max_length" or truncation != "do_not_truncate":
        max_length = tokenizer.model_max_length
    if padding != "do_not_pad" and tokenizer.pad_token_id is None:
      raise InputError(
        f"padding={self.padding!r}: the tokenizer has no pad token; give"
        ' pad_token="[PAD]" when it is made'
      )
    multiple = self.pad_to_multiple_of
    if max_length and multiple and max_length % multiple:
      if padding != "do_not_pad" and truncation != "do_not_truncate":
        raise InputError(
          f"max_length={max_length}: wanted a multiple of"
          f" pad_to_multiple_of={multiple} where texts are cut and padded"
        )
    return dataclasses.replace(
      self, padding=padding, truncation=truncation, max_length=max_length
    )

  def _padding(self) -> str:
    if self.padding is False:
      if not self.pad_to_max_length:
        return "do_not_pad"
      return "longest" if self.max_length is None else "max_length"
    return _one_of("padding", self.padding, PADDING)

  def _truncation(self) -> str:
    truncation = self.truncation
    if truncation is None:
      if self.max_length is not None and self.padding is False:
        return "longest_first"
      truncation = self.truncation_strategy
    if truncation is False:
      return "do_not_truncate"
    return _one_of("truncation", truncation, TRUNCATION)


def split(
  keywords: Mapping[str, Any],
) -> tuple[EncodeOptions, dict[str, Any]]:
  """The options among some keywords, and the other keywords."""
  names = {field.name for field in dataclasses.fields(EncodeOptions)}
  own = {k: v for k, v in keywords.items() if k in names}
  rest = {k: v for k, v in keywords.items() if k not in names}
  return EncodeOptions(**own), rest


def _one_of(name: str, value: bool | str, allowed: tuple[str, ...]) -> str:
  """`value`, with True for the first of those allowed."""
  if value is True:
    return allowed[0]
  if value not in allowed:
    raise InputError(
      f"{name}={value!r}: wanted True, False or one of {', '.join(allowed)}"
    )
  return allowed[allowed.index(value)]


def truncate(
  ids: list[int],
  pair_ids: list[int] | None,
  num_tokens: int,
  options: EncodeOptions,
  side: str,
) -> tuple[list[int], list[int] | None, list[int]]:
  """Cuts ids off a text or a pair.

  Args:
    num_tokens: how many to cut, at least 1.
    options: gives truncation (resolved) and stride.
    side: "right" or "left", where to cut.

  Returns:
    The ids, the pair's ids, and what was cut with `stride` ids before it. A
    text that is too short is left whole, with a warning; longest_first returns
    nothing of a pair as cut. Both are the reference's.
  """
  if options.truncation == "longest_first" and pair_ids is not None:
    left, pair_left = len(ids), len(pair_ids)
    for _ in range(num_tokens):
      if left > pair_left:
        left -= 1
      else:
        pair_left = max(0, pair_left - 1)
    return _kept(ids, left, side), _kept(pair_ids, pair_left, side), []
  if options.truncation == "only_second":
    if pair_ids is None:
      return ids, None, []
    kept, cut = _cut(pair_ids, num_tokens, options, side)
    return ids, kept, cut
  kept, cut = _cut(ids, num_tokens, options, side)
  return kept, pair_ids, cut


def _cut(
  ids: list[int], num_tokens: int, options: EncodeOptions, side: str
) -> tuple[list[int], list[int]]:
  if len(ids) <= num_tokens:
    logging.warning(
      "truncation=%s: %d tokens are too many, but the text to cut has only %d;"
      " it is left as it is",
      options.truncation,
      num_tokens,
      len(ids),
    )
    return ids, []
  window = min(len(ids), options.stride + num_tokens)
  cut = ids[:window] if side == "left" else ids[-window:]
  return _kept(ids, len(ids) - num_tokens, side), cut


def _kept(ids: list[int], length: int, side: str) -> list[int]:
  return ids[len(ids) - length :] if side == "left" else ids[:length]
