"""RealmTokenizerFast: the reference's fast tokenizer, by `tokenizers`."""

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

import tokenizers
from tokenizers import (
  AddedToken,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
)

from realm_jax.config import InputError
from realm_jax.data import added_tokens, tokenizer_files
from realm_jax.data.encode_options import EncodeOptions
from realm_jax.data.encoding import BatchEncoding
from realm_jax.data.pretrained_tokenizer import PretrainedTokenizer
from realm_jax.data.realm_tokenizer import RealmTokenizer


class RealmTokenizerFast(PretrainedTokenizer):
  """Text to wordpiece ids and back, as transformers 4.34's RealmTokenizerFast.

  Attributes:
    backend_tokenizer: the `tokenizers.Tokenizer`.
    do_lower_case: whether text is lower-cased.
  """

  is_fast = True

  def __init__(
    self,
    vocab_file: str | os.PathLike | None = None,
    tokenizer_file: str | os.PathLike | None = None,
    do_lower_case: bool = True,
    unk_token: str | AddedToken = "[UNK]",
    sep_token: str | AddedToken = "[SEP]",
    pad_token: str | AddedToken = "[PAD]",
    cls_token: str | AddedToken = "[CLS]",
    mask_token: str | AddedToken = "[MASK]",
    tokenize_chinese_chars: bool = True,
    strip_accents: bool | None = None,
    **kwargs: Any,
  ):
    """Reads a vocabulary or a tokenizer.json.

    Args:
      vocab_file: one piece a line, its number the id.
      tokenizer_file: what tokenizers.Tokenizer.save wrote; read instead.
      do_lower_case, tokenize_chinese_chars, strip_accents, unk_token, ...: as
        RealmTokenizer has them.
      **kwargs: as RealmTokenizer has them; clean_text and wordpieces_prefix
        are kept and have no effect, as in the reference.

    Raises:
      InputError: no such file, or an argument of a wrong kind.
    """
    arguments = {
      "do_lower_case": do_lower_case,
      "unk_token": unk_token,
      "sep_token": sep_token,
      "pad_token": pad_token,
      "cls_token": cls_token,
      "mask_token": mask_token,
      "tokenize_chinese_chars": tokenize_chinese_chars,
      "strip_accents": strip_accents,
      **kwargs,
    }
    if tokenizer_file is not None:
      self.backend_tokenizer = _read_backend(tokenizer_file)
      arguments = _saved_sides(self.backend_tokenizer) | arguments
    else:
      slow = RealmTokenizer(vocab_file, **arguments)
      self.backend_tokenizer = _backend(slow)
      arguments |= slow.init_kwargs
    _normalize_as(
      self.backend_tokenizer,
      do_lower_case,
      tokenize_chinese_chars,
      strip_accents,
    )
    self.do_lower_case = do_lower_case
    self._init(arguments)
    saved = sorted(arguments.get("added_tokens_decoder", {}).items())
    self.add_tokens([token for _, token in saved])
    self.add_tokens(self.all_special_tokens_extended, special_tokens=True)

  @property
  def vocab_size(self) -> int:
    """Number of pieces without added tokens."""
    return self.backend_tokenizer.get_vocab_size(with_added_tokens=False)

  def __len__(self) -> int:
    return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)

  def get_vocab(self) -> dict[str, int]:
    """Piece -> id, with added tokens."""
    return self.backend_tokenizer.get_vocab(with_added_tokens=True)

  @property
  def vocab(self) -> dict[str, int]:
    """Piece -> id, with added tokens."""
    return self.get_vocab()

  @property
  def added_tokens_decoder(self) -> dict[int, AddedToken]:
    """Id -> added token."""
    return self.backend_tokenizer.get_added_tokens_decoder()

  def get_added_vocab(self) -> dict[str, int]:
    """Text -> id of added tokens."""
    return self.added_tokens_encoder

  def _add_tokens(
    self, new_tokens: list[str | AddedToken], special_tokens: bool
  ) -> int:
    backend = self.backend_tokenizer
    add = backend.add_special_tokens if special_tokens else backend.add_tokens
    tokens = [
      added_tokens.changed(token, special=special_tokens)
      if isinstance(token, AddedToken)
      else token
      for token in new_tokens
    ]
    return _checked(add, tokens)

  def num_special_tokens_to_add(self, pair: bool = False) -> int:
    """Number of special tokens around a text or a pair."""
    return self.backend_tokenizer.num_special_tokens_to_add(pair)

  def build_inputs_with_special_tokens(
    self, token_ids_0: list[int], token_ids_1: list[int] | None = None
  ) -> list[int]:
    """[CLS] first [SEP], or [CLS] first [SEP] second [SEP]."""
    output = [self.cls_token_id, *token_ids_0, self.sep_token_id]
    return [*output, *token_ids_1, self.sep_token_id] if token_ids_1 else output

  def tokenize(
    self,
    text: str,
    pair: str | None = None,
    add_special_tokens: bool = False,
    **options: Any,
  ) -> list[str]:
    """Pieces of a text or a pair; options as in a call."""
    options["add_special_tokens"] = add_special_tokens
    return self.encode_plus(text, pair, **options).tokens()

  def convert_tokens_to_ids(
    self, tokens: str | Iterable[str] | None
  ) -> int | list[int] | None:
    """Id of a token, or ids of many; unknown ones have that of unk_token."""
    if tokens is None:
      return None
    if not isinstance(tokens, str):
      return [self.convert_tokens_to_ids(token) for token in tokens]
    token_id = self.backend_tokenizer.token_to_id(tokens)
    if token_id is None and tokens != self.unk_token:
      return self.unk_token_id
    return token_id

  def convert_ids_to_tokens(
    self, ids: int | Iterable[int], skip_special_tokens: bool = False
  ) -> str | list[str | None] | None:
    """Token of an id, or tokens of many; None where there is none."""
    if isinstance(ids, int):
      return self._tokens([ids])[0]
    special = set(self.all_special_ids) if skip_special_tokens else ()
    return self._tokens([int(i) for i in ids if int(i) not in special])

  def _tokens(self, ids: list[int]) -> list[str | None]:
    # Newer versions of the library lower-case added tokens here.
    added = {i: str(t) for i, t in self.added_tokens_decoder.items()}
    token = self.backend_tokenizer.id_to_token
    return [added[i] if i in added else _checked(token, i) for i in ids]

  def convert_tokens_to_string(self, tokens: list[str]) -> str:
    """Joins tokens with spaces, pieces of one word without."""
    return _checked(self.backend_tokenizer.decoder.decode, tokens)

  def _decode(
    self, ids: int | list[int], skip_special_tokens: bool, **_: Any
  ) -> str:
    added = self.added_tokens_decoder.values()
    skipped = {str(t) for t in added if t.special and skip_special_tokens}
    tokens = self._tokens([ids] if isinstance(ids, int) else ids)
    return self.convert_tokens_to_string(
      [t for t in tokens if t is not None and t not in skipped]
    )

  def save_vocabulary(
    self, save_directory: str | os.PathLike, filename_prefix: str | None = None
  ) -> tuple[str, ...]:
    """Writes vocab.txt, one piece a line, without added tokens."""
    vocab = self.backend_tokenizer.get_vocab(with_added_tokens=False)
    return tokenizer_files.save_vocabulary(
      vocab, save_directory, filename_prefix
    )

  def _encode_one(
    self,
    text: Any,
    text_pair: Any,
    options: EncodeOptions,
    rest: dict[str, Any],
  ) -> BatchEncoding:
    batch = [(text, text_pair)] if text_pair else [text]
    encoding = self._encode_batch(batch, options, rest)
    if options.return_tensors or options.return_overflowing_tokens:
      return encoding
    row = {
      name: rows[0] if isinstance(rows[0], list) else rows
      for name, rows in encoding.items()
    }
    return BatchEncoding(row, encoding.encodings)

  def _encode_batch(
    self, batch: Sequence[Any], options: EncodeOptions, rest: dict[str, Any]
  ) -> BatchEncoding:
    if rest:
      raise InputError(f"unknown options: {', '.join(rest)}")
    if not isinstance(batch, (list, tuple)) or not batch:
      raise InputError(f"{batch!r:.80}: wanted a list of texts, not empty")
    self._set_length(options)
    encodings = _checked(
      self.backend_tokenizer.encode_batch,
      batch,
      is_pretokenized=options.is_split_into_words,
      add_special_tokens=options.add_special_tokens,
    )
    rows = [(i, encoding) for i, encoding in enumerate(encodings)]
    if options.return_overflowing_tokens:
      rows = [(i, row) for i, e in rows for row in (e, *e.overflowing)]
    data: dict[str, Any] = {"input_ids": [e.ids for _, e in rows]}
    if self._wanted("token_type_ids", options.return_token_type_ids):
      data["token_type_ids"] = [e.type_ids for _, e in rows]
    if self._wanted("attention_mask", options.return_attention_mask):
      data["attention_mask"] = [e.attention_mask for _, e in rows]
    if options.return_special_tokens_mask:
      data["special_tokens_mask"] = [e.special_tokens_mask for _, e in rows]
    if options.return_offsets_mapping:
      data["offset_mapping"] = [e.offsets for _, e in rows]
    if options.return_length:
      data["length"] = [len(e.ids) for _, e in rows]
    if options.return_overflowing_tokens:
      data["overflow_to_sample_mapping"] = [i for i, _ in rows]
    return BatchEncoding(data, [e for _, e in rows], options.return_tensors)

  def _set_length(self, options: EncodeOptions) -> None:
    """Tells the backend how to cut and pad what comes next."""
    backend = self.backend_tokenizer
    if options.truncation == "do_not_truncate":
      backend.no_truncation()
    else:
      _checked(
        backend.enable_truncation,
        options.max_length,
        stride=options.stride,
        strategy=options.truncation,
        direction=self.truncation_side,
      )
    if options.padding == "do_not_pad":
      backend.no_padding()
    else:
      to_length = options.padding == "max_length"
      _checked(
        backend.enable_padding,
        direction=self.padding_side,
        pad_id=self.pad_token_id,
        pad_token=self.pad_token,
        pad_type_id=self.pad_token_type_id,
        length=options.max_length if to_length else None,
        pad_to_multiple_of=options.pad_to_multiple_of,
      )


def _checked(function: Any, *args: Any, **options: Any) -> Any:
  """Calls the library; what it raises becomes an InputError.

  Its errors are plain exceptions, and a stride that is too large for the
  length is a "PanicException", which is not even one of those.
  """
  try:
    return function(*args, **options)
  except BaseException as e:
    if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
      raise
    raise InputError(f"the tokenizer cannot do this: {e}") from e


def _read_backend(path: str | os.PathLike) -> tokenizers.Tokenizer:
  if not os.path.isfile(path):
    raise InputError(f"tokenizer_file={str(path)!r}: no such file")
  return _checked(tokenizers.Tokenizer.from_file, os.fspath(path))


def _backend(slow: RealmTokenizer) -> tokenizers.Tokenizer:
  """BERT's pipeline with the vocabulary of a slow tokenizer."""
  cls, sep = str(slow.cls_token), str(slow.sep_token)
  backend = tokenizers.Tokenizer(
    models.WordPiece(slow.vocab, unk_token=str(slow.unk_token))
  )
  backend.normalizer = normalizers.BertNormalizer()
  backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  backend.post_processor = processors.TemplateProcessing(
    single=f"{cls}:0 $A:0 {sep}:0",
    pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
    special_tokens=[(cls, slow.cls_token_id), (sep, slow.sep_token_id)],
  )
  backend.decoder = decoders.WordPiece(prefix="##")
  return backend


def _normalize_as(
  backend: tokenizers.Tokenizer,
  lowercase: bool,
  handle_chinese_chars: bool,
  strip_accents: bool | None,
) -> None:
  """Sets the options of BERT's normalizer; leaves another one as it is."""
  if isinstance(backend.normalizer, normalizers.BertNormalizer):
    state = json.loads(backend.normalizer.__getstate__())
    backend.normalizer = normalizers.BertNormalizer(
      clean_text=state["clean_text"],
      handle_chinese_chars=handle_chinese_chars,
      strip_accents=strip_accents,
      lowercase=lowercase,
    )


def _saved_sides(backend: tokenizers.Tokenizer) -> dict[str, str]:
  """Where a saved backend last cut and padded."""
  sides = {}
  if backend.truncation:
    sides["truncation_side"] = backend.truncation["direction"]
  if backend.padding:
    sides["padding_side"] = backend.padding["direction"]
  return sides
