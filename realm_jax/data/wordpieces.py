"""The two libraries behind Tokenizer, brought to one form."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

Offsets = list[tuple[int, int]]


class WordPiece:
  """BERT's WordPiece: the pieces in a text file, applied by `tokenizers`."""

  kind = "wordpiece"
  file = "vocab.txt"

  def __init__(self, pieces: list[str], lower_case: bool):
    self.pieces = pieces
    self.options = {"lower_case": lower_case}
    vocab = {piece: i for i, piece in enumerate(pieces)}
    self._model = tokenizers.Tokenizer(
      models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100)
    )
    self._model.normalizer, self._model.pre_tokenizer = bert_text(lower_case)
    self._model.decoder = decoders.WordPiece()

  def identity(self) -> bytes:
    return json.dumps([self.kind, self.options, self.pieces]).encode()

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    return [e.ids for e in self._model.encode_batch_fast(texts)]

  def encode_batch_with_offsets(
    self, texts: Sequence[str]
  ) -> list[tuple[list[int], Offsets]]:
    encoded = self._model.encode_batch(texts)
    return [
      (e.ids, _to_bytes(text, e.offsets))
      for text, e in zip(texts, encoded, strict=True)
    ]

  def decode(self, ids: list[int]) -> str:
    return self._model.decode(ids, skip_special_tokens=False)

  def save(self, directory: pathlib.Path) -> None:
    text = "\n".join(self.pieces) + "\n"
    (directory / self.file).write_text(text, encoding="utf-8")


class SentencePiece:
  """A SentencePiece model, kept as its own serialised bytes."""

  kind = "sentencepiece"
  file = "spm.model"
  options: dict[str, bool] = {}  # noqa: RUF012 - the model holds its options

  def __init__(self, model: bytes):
    import sentencepiece

    self._bytes = model
    self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
    self.pieces = [
      self._model.id_to_piece(i) for i in range(self._model.vocab_size())
    ]

  def identity(self) -> bytes:
    return self.kind.encode() + self._bytes

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    return self._model.encode(list(texts), num_threads=1)

  def encode_batch_with_offsets(
    self, texts: Sequence[str]
  ) -> list[tuple[list[int], Offsets]]:
    return [self._encode_with_offsets(text) for text in texts]

  def _encode_with_offsets(self, text: str) -> tuple[list[int], Offsets]:
    ids, offsets = [], []
    for piece in self._model.encode(text, out_type="proto").pieces:
      blank = len(piece.surface) - len(piece.surface.lstrip())
      # A piece "▁word" claims the space before the word.
      start = piece.begin + len(piece.surface[:blank].encode())
      ids.append(piece.id)
      offsets.append((start, piece.end))
    return ids, offsets

  def decode(self, ids: list[int]) -> str:
    return self._model.decode(ids)

  def save(self, directory: pathlib.Path) -> None:
    (directory / self.file).write_bytes(self._bytes)


def bert_text(lower_case: bool):
  """BERT's cleaning and word splitting."""
  normalizer = normalizers.BertNormalizer(lowercase=lower_case)
  return normalizer, pre_tokenizers.BertPreTokenizer()


def _to_bytes(text: str, offsets: Offsets) -> Offsets:
  if text.isascii():
    return offsets
  at = char_to_byte(text)
  return [(at[start], at[end]) for start, end in offsets]


def char_to_byte(text: str) -> list[int]:
  """Byte offset of each character of a text, and of its end."""
  codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
  sizes = 1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF)
  return [0, *np.cumsum(sizes).tolist()]
