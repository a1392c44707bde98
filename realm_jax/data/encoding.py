"""What a tokenizer returns: a mapping of names to lists or NumPy arrays."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from realm_jax.config import InputError


class Span(NamedTuple):
  """From start to before end."""

  start: int
  end: int


class BatchEncoding(collections.UserDict):
  """Encoded texts: `encoding["input_ids"]` or `encoding.input_ids`.

  The methods that go between tokens, words and characters need the fast
  tokenizer. Where they take two indices, one alone is that of the first text.

  Attributes:
    encodings: what the fast tokenizer made, one a row; None of the slow one.
  """

  def __init__(
    self,
    data: Mapping[str, Any] | None = None,
    encodings: Sequence[tokenizers.Encoding] | None = None,
    tensor_type: str | None = None,
  ):
    super().__init__(data)
    self.encodings = encodings
    self.convert_to_tensors(tensor_type)

  def __getattr__(self, name: str) -> Any:
    if name != "data" and name in self.data:  # "data" is missing while copied
      return self.data[name]
    raise AttributeError(name)

  def __getitem__(self, key: str | int | slice) -> Any:
    if isinstance(key, str):
      return self.data[key]
    if self.encodings is not None:
      return self.encodings[key]
    if isinstance(key, slice):
      return {name: value[key] for name, value in self.data.items()}
    raise KeyError(f"{key!r}: wanted a name, or a slice of the rows")

  def convert_to_tensors(self, tensor_type: str | None) -> "BatchEncoding":
    """Makes every value an array of int64 if tensor_type is "np".

    Raises:
      InputError: another type, or rows of different lengths.
    """
    if tensor_type is None:
      return self
    if tensor_type != "np":
      raise InputError(
        f'return_tensors={tensor_type!r}: wanted "np" (NumPy arrays, which JAX'
        " takes as they are) or None"
      )
    for name, value in self.data.items():
      try:
        self.data[name] = np.asarray(value, dtype=np.int64)
      except (ValueError, TypeError) as e:
        raise InputError(
          f'return_tensors="np": the rows of {name} differ in length;'
          " give padding=True (and truncation=True, max_length=...)"
        ) from e
    return self

  @property
  def is_fast(self) -> bool:
    """Whether the fast tokenizer made it."""
    return self.encodings is not None

  @property
  def n_sequences(self) -> int | None:
    """1 for texts, 2 for pairs; None if not known."""
    return self.encodings[0].n_sequences if self.encodings else None

  def tokens(self, batch_index: int = 0) -> list[str]:
    """Tokens of one row."""
    return self._encoding(batch_index).tokens

  def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
    """For each token: 0 or 1, the text of a pair; None for a special one."""
    return self._encoding(batch_index).sequence_ids

  def word_ids(self, batch_index: int = 0) -> list[int | None]:
    """For each token: the number of its word; None for a special one."""
    return self._encoding(batch_index).word_ids

  def token_to_sequence(
    self, batch_or_token_index: int, token_index: int | None = None
  ) -> int | None:
    """0 or 1, the text of a pair that a token is from."""
    encoding, i = self._at(batch_or_token_index, token_index)
    return encoding.token_to_sequence(i)

  def token_to_word(
    self, batch_or_token_index: int, token_index: int | None = None
  ) -> int | None:
    """Number of the word that a token is from."""
    encoding, i = self._at(batch_or_token_index, token_index)
    return encoding.token_to_word(i)

  def token_to_chars(
    self, batch_or_token_index: int, token_index: int | None = None
  ) -> Span | None:
    """Characters of the text that a token stands for."""
    encoding, i = self._at(batch_or_token_index, token_index)
    return _span(encoding.token_to_chars(i))

  def word_to_tokens(
    self,
    batch_or_word_index: int,
    word_index: int | None = None,
    sequence_index: int = 0,
  ) -> Span | None:
    """Tokens of a word."""
    encoding, i = self._at(batch_or_word_index, word_index)
    return _span(encoding.word_to_tokens(i, sequence_index))

  def word_to_chars(
    self,
    batch_or_word_index: int,
    word_index: int | None = None,
    sequence_index: int = 0,
  ) -> Span | None:
    """Characters of a word."""
    encoding, i = self._at(batch_or_word_index, word_index)
    return _span(encoding.word_to_chars(i, sequence_index))

  def char_to_token(
    self,
    batch_or_char_index: int,
    char_index: int | None = None,
    sequence_index: int = 0,
  ) -> int | None:
    """Index of the token that a character is in; None for a space."""
    encoding, i = self._at(batch_or_char_index, char_index)
    return encoding.char_to_token(i, sequence_index)

  def char_to_word(
    self,
    batch_or_char_index: int,
    char_index: int | None = None,
    sequence_index: int = 0,
  ) -> int | None:
    """Number of the word that a character is in; None for a space."""
    encoding, i = self._at(batch_or_char_index, char_index)
    return encoding.char_to_word(i, sequence_index)

  def _encoding(self, row: int) -> tokenizers.Encoding:
    if not self.encodings:
      raise InputError(
        "only what RealmTokenizerFast returns knows the tokens' places"
      )
    return self.encodings[row]

  def _at(self, row: int, index: int | None) -> tuple[tokenizers.Encoding, int]:
    if index is None:
      row, index = 0, row
    return self._encoding(row), index


def _span(bounds: tuple[int, int] | None) -> Span | None:
  return None if bounds is None else Span(*bounds)
