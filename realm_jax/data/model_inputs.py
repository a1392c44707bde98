"""Ids to what a model takes: special tokens, cut to a length, padded."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from realm_jax.config import InputError
from realm_jax.data import encode_options
from realm_jax.data.encode_options import EncodeOptions
from realm_jax.data.encoding import BatchEncoding
from realm_jax.data.special_tokens import SpecialTokens


class ModelInputs(SpecialTokens):
  """Makes rows of ids into model inputs; the base of both tokenizers.

  Attributes:
    model_max_length: tokens that the model takes, as far as is known.
    padding_side, truncation_side: "right" or "left".
    model_input_names: what a call returns if not told otherwise; the first
      names the ids.
  """

  @property
  def max_len_single_sentence(self) -> int:
    """Tokens of a text that the model takes."""
    return self.model_max_length - self.num_special_tokens_to_add(pair=False)

  @property
  def max_len_sentences_pair(self) -> int:
    """Tokens of a pair that the model takes."""
    return self.model_max_length - self.num_special_tokens_to_add(pair=True)

  def create_token_type_ids_from_sequences(
    self, token_ids_0: list[int], token_ids_1: list[int] | None = None
  ) -> list[int]:
    """0 for [CLS], the first ids and [SEP]; 1 for the second ids and [SEP]."""
    first = [0] * (len(token_ids_0) + 2)
    if token_ids_1 is None:
      return first
    return first + [1] * (len(token_ids_1) + 1)

  def prepare_for_model(
    self,
    ids: list[int],
    pair_ids: list[int] | None = None,
    prepend_batch_axis: bool = False,
    **options: Any,
  ) -> BatchEncoding:
    """Adds special tokens to ids, cuts and pads them.

    Args:
      ids: of one text.
      pair_ids: of its second text.
      prepend_batch_axis: arrays are [1, Q], not [Q].
      **options: fields of EncodeOptions.

    Raises:
      InputError: options that don't go together.
    """
    own, _ = encode_options.split(options)
    return self._prepared(ids, pair_ids, own.resolved(self), prepend_batch_axis)

  def _prepared(
    self,
    ids: list[int],
    pair_ids: list[int] | None,
    options: EncodeOptions,
    batch_axis: bool,
  ) -> BatchEncoding:
    row = self._row(ids, pair_ids, options)
    mask = self._wanted("attention_mask", options.return_attention_mask)
    if options.padding != "do_not_pad" or mask:
      row = dict(
        self.pad(
          row,
          padding=options.padding,
          max_length=options.max_length,
          pad_to_multiple_of=options.pad_to_multiple_of,
          return_attention_mask=mask,
        )
      )
    if options.return_length:
      row["length"] = len(row["input_ids"])
    if batch_axis and options.return_tensors:
      row = {name: [value] for name, value in row.items()}
    return BatchEncoding(row, tensor_type=options.return_tensors)

  def _row(
    self, ids: list[int], pair_ids: list[int] | None, options: EncodeOptions
  ) -> dict[str, Any]:
    """One text or pair with special tokens, cut but not padded."""
    _check_row(pair_ids, options)
    special, limit = options.add_special_tokens, options.max_length
    total = len(ids) + len(pair_ids or ())
    if special:
      total += self.num_special_tokens_to_add(pair=pair_ids is not None)
    cut: list[int] = []
    if options.truncation != "do_not_truncate" and limit and total > limit:
      ids, pair_ids, cut = encode_options.truncate(
        ids, pair_ids, total - limit, options, self.truncation_side
      )
    row: dict[str, Any] = {}
    if options.return_overflowing_tokens:
      row["overflowing_tokens"] = cut
      row["num_truncated_tokens"] = total - limit
    if special:
      row["input_ids"] = self.build_inputs_with_special_tokens(ids, pair_ids)
      types = self.create_token_type_ids_from_sequences(ids, pair_ids)
    else:
      row["input_ids"] = ids + (pair_ids or [])
      types = [0] * len(row["input_ids"])
    if self._wanted("token_type_ids", options.return_token_type_ids):
      row["token_type_ids"] = types
    if options.return_special_tokens_mask:
      row["special_tokens_mask"] = (
        self.get_special_tokens_mask(ids, pair_ids) if special else list(types)
      )
    return row

  def _wanted(self, name: str, asked: bool | None) -> bool:
    return name in self.model_input_names if asked is None else asked

  def pad(
    self,
    encoded_inputs: Any,
    padding: bool | str = True,
    max_length: int | None = None,
    pad_to_multiple_of: int | None = None,
    return_attention_mask: bool | None = None,
    return_tensors: str | None = None,
    verbose: bool = True,
  ) -> BatchEncoding:
    """Pads what a call returned: one row, a batch, or a list of rows.

    Args:
      encoded_inputs: mapping of name to row or to list of rows; or a list of
        mappings of name to row. Rows of arrays give arrays.
      padding, max_length, pad_to_multiple_of, return_attention_mask,
        return_tensors, verbose: see EncodeOptions.

    Raises:
      InputError: no ids, or a batch whose values differ in number.
    """
    name = self.model_input_names[0]
    if isinstance(encoded_inputs, Mapping):
      data = dict(encoded_inputs)
    else:
      names = encoded_inputs[0] if encoded_inputs else {}
      data = {k: [row[k] for row in encoded_inputs] for k in names}
    if name not in data:
      raise InputError(f"pad: wanted {name} among {list(data)}")
    rows = data[name]
    if rows is None or len(rows) == 0:
      if return_attention_mask:
        data["attention_mask"] = []
      return BatchEncoding(data)
    if not isinstance(_first(rows), (int, list, tuple, np.ndarray)):
      raise InputError(f"pad: wanted ids, not {_first(rows)!r:.40}")
    if isinstance(rows[0], np.ndarray):
      return_tensors = return_tensors or "np"
      data = {k: [np.asarray(x).tolist() for x in v] for k, v in data.items()}
    mask = self._wanted("attention_mask", return_attention_mask)
    options = EncodeOptions(padding=padding, max_length=max_length).resolved(
      self
    )
    options = dataclasses.replace(
      options, pad_to_multiple_of=pad_to_multiple_of
    )
    if isinstance(data[name][0], (list, tuple)):
      data = self._padded_batch(data, options, mask)
    else:
      data = self._padded(data, options, mask)
    return BatchEncoding(data, tensor_type=return_tensors)

  def _padded_batch(
    self, data: Mapping[str, Any], options: EncodeOptions, mask: bool
  ) -> dict[str, Any]:
    rows = data[self.model_input_names[0]]
    if any(len(values) != len(rows) for values in data.values()):
      raise InputError(
        f"pad: wanted {len(rows)} rows of each of {', '.join(data)}"
      )
    if options.padding == "longest":
      longest = max(map(len, rows))
      options = dataclasses.replace(
        options, padding="max_length", max_length=longest
      )
    padded = [
      self._padded({k: v[i] for k, v in data.items()}, options, mask)
      for i in range(len(rows))
    ]
    return {name: [row[name] for row in padded] for name in padded[0]}

  def _padded(
    self, row: Mapping[str, Any], options: EncodeOptions, mask: bool
  ) -> dict[str, Any]:
    """One row, padded on the tokenizer's side."""
    row, name = dict(row), self.model_input_names[0]
    length, multiple = len(row[name]), options.pad_to_multiple_of
    if mask:
      row.setdefault("attention_mask", [1] * length)
    if options.padding == "do_not_pad":
      return row
    wanted = length if options.padding == "longest" else options.max_length
    if multiple:
      wanted = -(-wanted // multiple) * multiple
    fill = {
      name: self.pad_token_id,
      "token_type_ids": self.pad_token_type_id,
      "special_tokens_mask": 1,
    }
    if mask:
      fill["attention_mask"] = 0
    for key in fill.keys() & row.keys():
      pad = [fill[key]] * (wanted - length)
      values = list(row[key])
      row[key] = values + pad if self.padding_side == "right" else pad + values
    return row


def _check_row(pair_ids: list[int] | None, options: EncodeOptions) -> None:
  if options.return_token_type_ids and not options.add_special_tokens:
    raise InputError(
      "return_token_type_ids=True: wanted add_special_tokens=True with it"
    )
  if options.return_overflowing_tokens:
    if options.max_length is None:
      raise InputError("return_overflowing_tokens=True: give max_length too")
    if options.truncation == "longest_first" and pair_ids is not None:
      raise InputError(
        "return_overflowing_tokens=True: for pairs, wanted"
        ' truncation="only_first" or "only_second"'
      )


def _first(rows: Any) -> Any:
  """The first id of a row or of the first row that has one."""
  if isinstance(rows[0], (list, tuple)):
    return next((row[0] for row in rows if row), rows[0])
  return rows[0]
