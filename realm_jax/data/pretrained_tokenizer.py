"""What RealmTokenizer and RealmTokenizerFast have in common: how to call them."""

import abc
import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from realm_jax.config import InputError
from realm_jax.data import encode_options, tokenizer_files
from realm_jax.data.encode_options import EncodeOptions
from realm_jax.data.encoding import BatchEncoding
from realm_jax.data.model_inputs import ModelInputs

_CLEAN_UP = (
  (" .", "."),
  (" ?", "?"),
  (" !", "!"),
  (" ,", ","),
  (" ' ", "'"),
  (" n't", "n't"),
  (" 'm", "'m"),
  (" 's", "'s"),
  (" 've", "'ve"),
  (" 're", "'re"),
)


class PretrainedTokenizer(ModelInputs, abc.ABC):
  """A tokenizer that is called on texts, read from a directory and saved.

  Attributes:
    clean_up_tokenization_spaces: whether decode joins punctuation to words.
    split_special_tokens: whether the slow tokenizer splits special tokens.
    name_or_path: the directory it was read from, "" if none.
    init_kwargs: arguments it was made with, which save_pretrained writes.
  """

  def _init(self, arguments: Mapping[str, Any]) -> None:
    """Takes what both classes take out of a constructor's arguments."""
    self.init_kwargs = copy.deepcopy(dict(arguments))
    self.name_or_path = arguments.get("name_or_path", "")
    limit = arguments.get("model_max_length", arguments.get("max_len"))
    self.model_max_length = encode_options.NO_LIMIT if limit is None else limit
    self.padding_side = _side("padding_side", arguments)
    self.truncation_side = _side("truncation_side", arguments)
    self.model_input_names = arguments.get(
      "model_input_names", ["input_ids", "token_type_ids", "attention_mask"]
    )
    self.clean_up_tokenization_spaces = arguments.get(
      "clean_up_tokenization_spaces", True
    )
    self.split_special_tokens = arguments.get("split_special_tokens", False)
    self.init_special_tokens(arguments)

  def __repr__(self) -> str:
    return (
      f"{type(self).__name__}(name_or_path={self.name_or_path!r},"
      f" vocab_size={self.vocab_size}, special_tokens={self.special_tokens_map})"
    )

  @property
  def added_tokens_encoder(self) -> dict[str, int]:
    """Text -> id of the tokens that text is never split inside."""
    return {str(t): i for i, t in self.added_tokens_decoder.items()}

  def __call__(
    self,
    text: Any = None,
    text_pair: Any = None,
    text_target: Any = None,
    text_pair_target: Any = None,
    **options: Any,
  ) -> BatchEncoding:
    """Encodes a text, or a list of texts or of (text, pair) tuples.

    Args:
      text: str or list of str; with is_split_into_words, lists of words.
      text_pair: the second text of each, in the same form.
      text_target, text_pair_target: encoded likewise as "labels".
      **options: fields of EncodeOptions.

    Returns:
      BatchEncoding of input_ids, token_type_ids, attention_mask and what else
      was asked for: lists of int for one text, lists of rows for a list.

    Raises:
      InputError: input or options that cannot be encoded.
    """
    if text is None and text_target is None:
      raise InputError("a tokenizer was called without a text")
    if text is None:
      return self._call(text_target, text_pair_target, options)
    encoding = self._call(text, text_pair, options)
    if text_target is not None:
      labels = self._call(text_target, text_pair_target, options)
      encoding["labels"] = labels["input_ids"]
    return encoding

  def _call(
    self, text: Any, text_pair: Any, options: dict[str, Any]
  ) -> BatchEncoding:
    for given in (text, text_pair):
      if given is not None and not _is_text(given):
        raise InputError(
          f"{given!r:.80} cannot be tokenized: wanted a str, a list of str, or"
          " lists of words with is_split_into_words=True"
        )
    batched = isinstance(text, (list, tuple))
    if batched and options.get("is_split_into_words"):
      batched = bool(text) and isinstance(text[0], (list, tuple))
    if not batched:
      return self.encode_plus(text, text_pair, **options)
    if text_pair is None:
      return self.batch_encode_plus(text, **options)
    if isinstance(text_pair, str) or len(text) != len(text_pair):
      raise InputError(
        f"text_pair: wanted a list of {len(text)}, as many as there are texts"
      )
    pairs = list(zip(text, text_pair, strict=True))
    return self.batch_encode_plus(pairs, **options)

  def encode(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
    """Ids of one text or pair; see __call__."""
    return self.encode_plus(text, text_pair, **options)["input_ids"]

  def encode_plus(
    self, text: Any, text_pair: Any = None, **options: Any
  ) -> BatchEncoding:
    """Encodes one text or pair; see __call__."""
    own, rest = encode_options.split(options)
    return self._encode_one(text, text_pair, own.resolved(self), rest)

  def batch_encode_plus(
    self, batch_text_or_text_pairs: Sequence[Any], **options: Any
  ) -> BatchEncoding:
    """Encodes a list of texts or of pairs; see __call__."""
    own, rest = encode_options.split(options)
    return self._encode_batch(
      batch_text_or_text_pairs, own.resolved(self), rest
    )

  @abc.abstractmethod
  def _encode_one(
    self,
    text: Any,
    text_pair: Any,
    options: EncodeOptions,
    rest: dict[str, Any],
  ) -> BatchEncoding:
    """Encodes one text or pair; `rest` are keywords that are no options."""

  @abc.abstractmethod
  def _encode_batch(
    self, batch: Sequence[Any], options: EncodeOptions, rest: dict[str, Any]
  ) -> BatchEncoding:
    """Encodes texts or pairs; `rest` are keywords that are no options."""

  def batch_encode_candidates(
    self,
    text: Sequence[Sequence[str]],
    text_pair: Sequence[Sequence[str]] | None = None,
    return_tensors: str | None = None,
    **options: Any,
  ) -> BatchEncoding:
    """Encodes the candidates of each query, all padded to max_length.

    Args:
      text: [B, K] texts.
      text_pair: [B, K] second texts.
      return_tensors: "np" for arrays; needs max_length.
      **options: fields of EncodeOptions.

    Returns:
      input_ids, attention_mask, token_type_ids, each [B, K, C].
    """
    options["padding"] = "max_length"
    pairs = [None] * len(text) if text_pair is None else text_pair
    if len(pairs) != len(text):
      raise InputError(
        f"text_pair: wanted a list of {len(text)}, as many as there are texts"
      )
    rows = [self(t, p, **options) for t, p in zip(text, pairs, strict=True)]
    names = ("input_ids", "attention_mask", "token_type_ids")
    data = {
      name: [row[name] for row in rows]
      for name in names
      if rows and name in rows[0]
    }
    return BatchEncoding(data, tensor_type=return_tensors)

  def decode(
    self,
    token_ids: Any,
    skip_special_tokens: bool = False,
    clean_up_tokenization_spaces: bool | None = None,
    **options: Any,
  ) -> str:
    """Text of ids.

    Args:
      token_ids: an id, or a list or array of them.
      skip_special_tokens: leaves special tokens out.
      clean_up_tokenization_spaces: joins punctuation to the word before it;
        None: as the tokenizer was told when it was made.
      **options: spaces_between_special_tokens=False, slow tokenizer only.
    """
    ids = np.asarray(token_ids)
    if ids.ndim > 1:
      raise InputError(f"decode: ids of shape {ids.shape}: use batch_decode")
    text = self._decode(ids.tolist(), skip_special_tokens, **options)
    if clean_up_tokenization_spaces is None:
      clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
    if clean_up_tokenization_spaces:
      text = self.clean_up_tokenization(text)
    return text

  @abc.abstractmethod
  def _decode(
    self, ids: int | list[int], skip_special_tokens: bool, **options: Any
  ) -> str:
    """Text of ids, not cleaned up."""

  def batch_decode(
    self, sequences: Any, *args: Any, **options: Any
  ) -> list[str]:
    """Text of each of many lists of ids; see decode."""
    return [self.decode(ids, *args, **options) for ids in sequences]

  @staticmethod
  def clean_up_tokenization(out_string: str) -> str:
    """Takes away the space before punctuation and English short forms."""
    for spaced, joined in _CLEAN_UP:
      out_string = out_string.replace(spaced, joined)
    return out_string

  def get_special_tokens_mask(
    self,
    token_ids_0: list[int],
    token_ids_1: list[int] | None = None,
    already_has_special_tokens: bool = False,
  ) -> list[int]:
    """1 where an id of a finished sequence is a special token's, else 0.

    Raises:
      InputError: two sequences, or one without its special tokens.
    """
    if token_ids_1 is not None or not already_has_special_tokens:
      raise InputError(
        "get_special_tokens_mask: wanted one list of ids with"
        " already_has_special_tokens=True; return_special_tokens_mask=True"
        " gives the mask of a text"
      )
    special = set(self.all_special_ids)
    return [int(i in special) for i in token_ids_0]

  @classmethod
  def from_pretrained(
    cls, pretrained_model_name_or_path: str | os.PathLike, **overrides: Any
  ) -> Self:
    """Reads a tokenizer from a directory that save_pretrained wrote, or ours.

    Args:
      pretrained_model_name_or_path: directory with vocab.txt or, for the fast
        tokenizer, tokenizer.json; other files as the reference has them.
      **overrides: constructor arguments, before those in the files.

    Raises:
      InputError: no such directory, or a file that it needs is missing.
    """
    return tokenizer_files.load(cls, pretrained_model_name_or_path, overrides)

  def save_pretrained(
    self,
    save_directory: str | os.PathLike,
    legacy_format: bool | None = None,
    filename_prefix: str | None = None,
  ) -> tuple[str, ...]:
    """Writes the files that from_pretrained and the reference read.

    Args:
      legacy_format: the fast tokenizer only. True: no tokenizer.json; False:
        only that one beside the two configs; None: all.
      filename_prefix: put before each name, with a "-".

    Returns:
      Their paths.
    """
    return tokenizer_files.save(
      self, save_directory, legacy_format, filename_prefix
    )


def _is_text(value: Any) -> bool:
  """Whether `value` looks like text: str, [str] or [[str]], or empty."""
  if isinstance(value, (list, tuple)) and value:
    value = value[0]
    if isinstance(value, (list, tuple)) and value:
      value = value[0]
      return isinstance(value, str)
  return isinstance(value, (str, list, tuple))


def _side(name: str, arguments: Mapping[str, Any]) -> str:
  side = arguments.get(name, "right")
  if side not in ("right", "left"):
    raise InputError(f'{name}={side!r}: wanted "right" or "left"')
  return side
