"""RealmTokenizer: the reference's slow tokenizer, BERT's steps in Python."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Any

from absl import logging
from tokenizers import AddedToken

from realm_jax.config import InputError
from realm_jax.data import added_tokens, tokenizer_files
from realm_jax.data.basic_tokenization import BasicTokenizer, WordPieceTokenizer
from realm_jax.data.encode_options import EncodeOptions
from realm_jax.data.encoding import BatchEncoding
from realm_jax.data.pretrained_tokenizer import PretrainedTokenizer


class RealmTokenizer(PretrainedTokenizer):
  """Text to wordpiece ids and back, as transformers 4.34's RealmTokenizer.

  RealmTokenizerFast does the same many times faster. They differ where the
  reference's do: never_split, do_basic_tokenize, spaces around special tokens
  in a text, characters newer than one of them knows, what was cut off.

  Attributes:
    vocab: piece -> id, without added tokens.
    basic_tokenizer, wordpiece_tokenizer: the two steps; the first is there
      only with do_basic_tokenize.
  """

  is_fast = False

  def __init__(
    self,
    vocab_file: str | os.PathLike,
    do_lower_case: bool = True,
    do_basic_tokenize: bool = True,
    never_split: Iterable[str] | None = None,
    unk_token: str | AddedToken = "[UNK]",
    sep_token: str | AddedToken = "[SEP]",
    pad_token: str | AddedToken = "[PAD]",
    cls_token: str | AddedToken = "[CLS]",
    mask_token: str | AddedToken = "[MASK]",
    tokenize_chinese_chars: bool = True,
    strip_accents: bool | None = None,
    **kwargs: Any,
  ):
    """Reads a vocabulary.

    Args:
      vocab_file: one piece a line, its number the id.
      do_lower_case: lower-cases text, special tokens in it excepted.
      do_basic_tokenize: False leaves only the split into wordpieces.
      never_split: words that stay whole.
      unk_token, sep_token, pad_token, cls_token, mask_token: get an id after
        the others where the vocabulary lacks them.
      tokenize_chinese_chars: each ideograph is a word.
      strip_accents: None: where text is lower-cased.
      **kwargs: model_max_length, padding_side, truncation_side,
        model_input_names, clean_up_tokenization_spaces, split_special_tokens,
        bos_token, eos_token, additional_special_tokens; others are kept.

    Raises:
      InputError: no such file, or an argument of a wrong kind.
    """
    self.vocab = tokenizer_files.read_vocabulary(vocab_file)
    self.ids_to_tokens = {i: piece for piece, i in self.vocab.items()}
    self.do_basic_tokenize = do_basic_tokenize
    if do_basic_tokenize:
      self.basic_tokenizer = BasicTokenizer(
        do_lower_case, never_split, tokenize_chinese_chars, strip_accents
      )
    self.wordpiece_tokenizer = WordPieceTokenizer(self.vocab, str(unk_token))
    self._added_decoder: dict[int, AddedToken] = {}
    arguments = {
      "do_lower_case": do_lower_case,
      "do_basic_tokenize": do_basic_tokenize,
      "never_split": never_split,
      "unk_token": unk_token,
      "sep_token": sep_token,
      "pad_token": pad_token,
      "cls_token": cls_token,
      "mask_token": mask_token,
      "tokenize_chinese_chars": tokenize_chinese_chars,
      "strip_accents": strip_accents,
      **kwargs,
    }
    self._init(arguments)
    self._added_decoder.update(arguments.get("added_tokens_decoder", {}))
    self._added_encoder = {str(t): i for i, t in self._added_decoder.items()}
    self._add_tokens(self.all_special_tokens_extended, special_tokens=True)

  @property
  def do_lower_case(self) -> bool:
    """Whether text is lower-cased; there only with do_basic_tokenize."""
    return self.basic_tokenizer.do_lower_case

  @property
  def vocab_size(self) -> int:
    """Number of pieces without added tokens."""
    return len(self.vocab)

  def __len__(self) -> int:
    return len(self.get_vocab())

  def get_vocab(self) -> dict[str, int]:
    """Piece -> id, with added tokens."""
    return self.vocab | self.added_tokens_encoder

  @property
  def added_tokens_decoder(self) -> dict[int, AddedToken]:
    """Id -> added token."""
    return dict(sorted(self._added_decoder.items()))

  def get_added_vocab(self) -> dict[str, int]:
    """Text -> id of added tokens."""
    return self._added_encoder

  def _lower_cases(self) -> bool:
    return self.do_basic_tokenize and self.do_lower_case

  def _add_tokens(
    self, new_tokens: Iterable[str | AddedToken], special_tokens: bool
  ) -> int:
    vocab = self.get_vocab()
    first_id = len(vocab)
    for new in new_tokens:
      if not isinstance(new, (str, AddedToken)):
        raise InputError(f"token {new!r}: wanted a text or an AddedToken")
      if not str(new):
        continue
      token = added_tokens.added(new, special_tokens, self._lower_cases())
      token_id = vocab.setdefault(token.content, len(vocab))
      if token.special and token.content not in self.all_special_tokens:
        self.additional_special_tokens = [token]
      self._added_decoder[token_id] = token
      self._added_encoder[token.content] = token_id
    return len(vocab) - first_id

  def num_special_tokens_to_add(self, pair: bool = False) -> int:
    """Number of special tokens around a text or a pair."""
    return len(self.build_inputs_with_special_tokens([], [] if pair else None))

  def build_inputs_with_special_tokens(
    self, token_ids_0: list[int], token_ids_1: list[int] | None = None
  ) -> list[int]:
    """[CLS] first [SEP], or [CLS] first [SEP] second [SEP]."""
    cls, sep = [self.cls_token_id], [self.sep_token_id]
    first = cls + token_ids_0 + sep
    return first if token_ids_1 is None else first + token_ids_1 + sep

  def get_special_tokens_mask(
    self,
    token_ids_0: list[int],
    token_ids_1: list[int] | None = None,
    already_has_special_tokens: bool = False,
  ) -> list[int]:
    """1 where build_inputs_with_special_tokens puts a special token, else 0."""
    if already_has_special_tokens:
      return super().get_special_tokens_mask(token_ids_0, token_ids_1, True)
    first = [1, *[0] * len(token_ids_0), 1]
    if token_ids_1 is None:
      return first
    return [*first, *[0] * len(token_ids_1), 1]

  def tokenize(self, text: str, **kwargs: Any) -> list[str]:
    """Pieces of a text; added tokens in it stay whole.

    Args:
      **kwargs: split_special_tokens, if not as the tokenizer; others are left
        aside with a warning.
    """
    if unknown := kwargs.keys() - {"split_special_tokens"}:
      logging.warning("unknown options are left aside: %s", sorted(unknown))
    if self._lower_cases():
      text = added_tokens.lower(
        text, self.all_special_tokens, self._added_decoder.values()
      )
    if kwargs.get("split_special_tokens", self.split_special_tokens):
      return self._tokenize(text)
    tokens = []
    added = {t: self._added_decoder[i] for t, i in self._added_encoder.items()}
    for part in added_tokens.split(text, added):
      if part in added:
        tokens.append(part)
      else:
        tokens += self._tokenize(part)
    return tokens

  def _tokenize(self, text: str) -> list[str]:
    if not self.do_basic_tokenize:
      return self.wordpiece_tokenizer.tokenize(text)
    tokens = []
    basic = self.basic_tokenizer
    for word in basic.tokenize(text, never_split=self.all_special_tokens):
      if word in basic.never_split:
        tokens.append(word)
      else:
        tokens += self.wordpiece_tokenizer.tokenize(word)
    return tokens

  def convert_tokens_to_ids(
    self, tokens: str | Iterable[str] | None
  ) -> int | list[int] | None:
    """Id of a token, or ids of many; unknown ones have that of unk_token."""
    if tokens is None or isinstance(tokens, str):
      return self._id(tokens)
    return [self._id(token) for token in tokens]

  def _id(self, token: str | None) -> int | None:
    if token is None:
      return None
    if token in self._added_encoder:
      return self._added_encoder[token]
    return self.vocab.get(token, self.vocab.get(self.unk_token))

  def convert_ids_to_tokens(
    self, ids: int | Iterable[int], skip_special_tokens: bool = False
  ) -> str | list[str]:
    """Token of an id, or tokens of many; unknown ones give unk_token."""
    if isinstance(ids, int):
      return self._token(ids)
    special = set(self.all_special_ids) if skip_special_tokens else ()
    return [self._token(int(i)) for i in ids if int(i) not in special]

  def _token(self, token_id: int) -> str:
    if token_id in self._added_decoder:
      return self._added_decoder[token_id].content
    return self.ids_to_tokens.get(token_id, self.unk_token)

  def convert_tokens_to_string(self, tokens: Iterable[str]) -> str:
    """Joins tokens with spaces, pieces of one word without."""
    return " ".join(tokens).replace(" ##", "").strip()

  def _decode(
    self,
    ids: int | list[int],
    skip_special_tokens: bool,
    spaces_between_special_tokens: bool = True,
    **_: Any,
  ) -> str:
    # One id gives a str, whose letters count as tokens, as in the reference.
    tokens = self.convert_ids_to_tokens(ids, skip_special_tokens)
    alone = self._tokens_outside_vocab()
    parts, run = [], []
    for token in tokens:
      if token not in alone:
        run.append(token)
        continue
      parts += [*filter(None, [self.convert_tokens_to_string(run)]), token]
      run = []
    if run:
      parts.append(self.convert_tokens_to_string(run))
    return (" " if spaces_between_special_tokens else "").join(parts)

  def _tokens_outside_vocab(self) -> set[str]:
    """Added tokens that decode does not treat as pieces of a word."""
    return self._added_encoder.keys() - set(self.all_special_tokens) | {
      token
      for token in self.additional_special_tokens
      if self.convert_tokens_to_ids(token) >= self.vocab_size
    }

  def save_vocabulary(
    self, save_directory: str | os.PathLike, filename_prefix: str | None = None
  ) -> tuple[str, ...]:
    """Writes vocab.txt, one piece a line, without added tokens."""
    return tokenizer_files.save_vocabulary(
      self.vocab, save_directory, filename_prefix
    )

  def _encode_one(
    self,
    text: Any,
    text_pair: Any,
    options: EncodeOptions,
    rest: dict[str, Any],
  ) -> BatchEncoding:
    if options.return_offsets_mapping:
      raise InputError(
        "return_offsets_mapping=True: only RealmTokenizerFast knows the offsets"
      )
    ids = self._text_ids(text, options, rest)
    pair_ids = None
    if text_pair is not None:
      pair_ids = self._text_ids(text_pair, options, rest)
    return self._prepared(ids, pair_ids, options, batch_axis=True)

  def _encode_batch(
    self, batch: Sequence[Any], options: EncodeOptions, rest: dict[str, Any]
  ) -> BatchEncoding:
    unpadded = dataclasses.replace(
      options,
      padding="do_not_pad",
      return_attention_mask=False,
      return_tensors=None,
    )
    rows = []
    for item in batch:
      text, text_pair = _pair(item, options.is_split_into_words)
      row = self._encode_one(text, text_pair, unpadded, rest)
      rows.append(row)
    return self.pad(
      rows,
      padding=options.padding,
      max_length=options.max_length,
      pad_to_multiple_of=options.pad_to_multiple_of,
      return_attention_mask=options.return_attention_mask,
      return_tensors=options.return_tensors,
    )

  def _text_ids(
    self, text: Any, options: EncodeOptions, rest: dict[str, Any]
  ) -> list[int]:
    """Ids of a text, of words, of tokens, or ids as they are."""
    first = text[0] if isinstance(text, (list, tuple)) and text else None
    if isinstance(text, str):
      return self.convert_tokens_to_ids(self.tokenize(text, **rest))
    if isinstance(first, str) and options.is_split_into_words:
      tokens = [token for word in text for token in self.tokenize(word, **rest)]
      return self.convert_tokens_to_ids(tokens)
    if isinstance(first, str):
      return self.convert_tokens_to_ids(text)
    if isinstance(first, int):
      return list(text)
    raise InputError(
      f"{text!r:.80} cannot be encoded: wanted a str, or a list of words, tokens"
      " or ids that is not empty"
    )


def _pair(item: Any, is_split_into_words: bool) -> tuple[Any, Any]:
  """The text and the second text of one item of a batch."""
  if not isinstance(item, (list, tuple)):
    return item, None
  if is_split_into_words and item and not isinstance(item[0], (list, tuple)):
    return item, None
  if len(item) != 2:
    raise InputError(
      f"{item!r:.80} in a batch: wanted a text or a (text, second text) pair"
    )
  return item[0], item[1]
