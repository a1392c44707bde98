"""One tokenizer interface over WordPiece and SentencePiece.

Ids never carry specials: features.py adds [CLS] and [SEP] where a sequence is
built, and a "[MASK]" in somebody's text stays plain text. The hash names what
determines the ids; block stores, checkpoints and indexes carry it.
"""

import collections
import hashlib
import json
import os
import pathlib
import string
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import models, normalizers, trainers

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data import wordpieces
from realm_jax.data.wordpieces import Offsets

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Tokenizer:
  """Text to wordpiece ids and back; all offsets are BYTES of the UTF-8 text.

  Attributes:
    kind: "wordpiece" or "sentencepiece".
    vocab_size: number of pieces, specials among them.
    pad_id, unk_id, cls_id, sep_id, mask_id: the specials.
    hash: hex sha256 of the vocabulary and the options.
  """

  def __init__(self, backend: wordpieces.WordPiece | wordpieces.SentencePiece):
    self._backend = backend
    self.kind = backend.kind
    self.vocab_size = len(backend.pieces)
    ids = {piece: i for i, piece in enumerate(backend.pieces)}
    self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
      ids[special] for special in SPECIALS
    )
    self.hash = hashlib.sha256(backend.identity()).hexdigest()

  def encode(self, text: str) -> list[int]:
    """Ids of one text."""
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of many texts, much faster than one by one."""
    return self._backend.encode_batch(texts)

  def encode_with_offsets(self, text: str) -> tuple[list[int], Offsets]:
    """Ids of a text and the (start, end) bytes each stands for."""
    return self.encode_batch_with_offsets([text])[0]

  def encode_batch_with_offsets(
    self, texts: Sequence[str]
  ) -> list[tuple[list[int], Offsets]]:
    """encode_with_offsets of many texts."""
    return self._backend.encode_batch_with_offsets(texts)

  def decode(self, ids: Iterable[int]) -> str:
    """Text of ids; specials are left out."""
    specials = {self.pad_id, self.cls_id, self.sep_id}
    return self._backend.decode([int(i) for i in ids if int(i) not in specials])

  def tokens(self, ids: Iterable[int]) -> list[str]:
    """The pieces themselves."""
    return [self._backend.pieces[int(i)] for i in ids]

  def save(self, directory: str | os.PathLike) -> None:
    """Publishes the files that load_tokenizer reads."""
    with files.atomic_publish(directory) as tmp:
      tmp.mkdir()
      self._backend.save(tmp)
      meta = {
        "kind": self.kind,
        "hash": self.hash,
        "vocab_size": self.vocab_size,
        **self._backend.options,
      }
      (tmp / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")


def load_tokenizer(directory: str | os.PathLike) -> Tokenizer:
  """Reads what Tokenizer.save wrote.

  Raises:
    InputError: files are missing, or are not those that were saved.
  """
  directory = pathlib.Path(directory)
  meta = files.read_json(directory / "meta.json")
  if meta["kind"] == "sentencepiece":
    model = (directory / wordpieces.SentencePiece.file).read_bytes()
    tokenizer = Tokenizer(wordpieces.SentencePiece(model))
  else:
    tokenizer = load_vocab(
      directory / wordpieces.WordPiece.file, meta["lower_case"]
    )
  if tokenizer.hash != meta["hash"]:
    raise InputError(
      f"{directory}: the vocabulary is not the one that meta.json names"
      f" ({meta['hash'][:12]}): prepare the data again"
    )
  return tokenizer


def load_vocab(path: str | os.PathLike, lower_case: bool = True) -> Tokenizer:
  """Reads a BERT vocab.txt: one WordPiece a line, its number the id.

  Raises:
    InputError: no such file, a piece twice, a special piece missing.
  """
  path = pathlib.Path(path).expanduser()
  if not path.is_file():
    raise InputError(f"{path}: no such vocabulary file")
  pieces = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
  first: dict[str, int] = {}
  for number, piece in enumerate(pieces, 1):
    if piece in first:
      raise InputError(
        f"{path}:{number}: the piece {piece!r} is on line {first[piece]} too"
      )
    first[piece] = number
  for special in SPECIALS:
    if special not in first:
      raise InputError(
        f"{path}: lacks {special}; expected a BERT vocab.txt, one piece a line"
      )
  return Tokenizer(wordpieces.WordPiece(pieces, lower_case))


def train_wordpiece(
  texts: Iterable[str], vocab_size: int, lower_case: bool = True
) -> Tokenizer:
  """Trains a WordPiece vocabulary; the same texts give the same one."""
  _check_size(vocab_size)
  texts = list(texts)
  trained = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
  trained.normalizer, trained.pre_tokenizer = wordpieces.bert_text(lower_case)
  alphabet = _alphabet(texts, trained.normalizer, vocab_size // 16)
  trainer = trainers.WordPieceTrainer(
    vocab_size=vocab_size,
    # The trainer numbers "##x" in the order of a hash map, which decides ties
    # later on; as "special" pieces they have their numbers beforehand.
    special_tokens=[*SPECIALS, *_continuations(alphabet)],
    initial_alphabet=alphabet,
    limit_alphabet=len(alphabet),
    min_frequency=2,
    show_progress=False,
  )
  trained.train_from_iterator(texts, trainer)
  vocab = trained.get_vocab()
  return Tokenizer(
    wordpieces.WordPiece(sorted(vocab, key=vocab.get), lower_case)
  )


def train_sentencepiece(
  texts: Iterable[str], vocab_size: int, lower_case: bool = True
) -> Tokenizer:
  """Trains a SentencePiece unigram model.

  Raises:
    InputError: vocab_size is less than the characters need.
  """
  import io

  import sentencepiece

  _check_size(vocab_size)
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts),
      model_writer=model,
      vocab_size=vocab_size,
      hard_vocab_limit=False,  # few texts give fewer pieces, as with WordPiece
      pad_id=0,
      unk_id=1,
      bos_id=-1,
      eos_id=-1,
      pad_piece=SPECIALS[0],
      unk_piece=SPECIALS[1],
      control_symbols=list(SPECIALS[2:]),
      normalization_rule_name="nmt_nfkc_cf" if lower_case else "nmt_nfkc",
      minloglevel=2,
      max_sentence_length=1 << 20,
    )
  except RuntimeError as e:
    raise InputError(
      f"tokenizer.vocab_size={vocab_size}: SentencePiece cannot make it from"
      f" these texts ({str(e).splitlines()[-1].strip()})"
    ) from e
  return Tokenizer(wordpieces.SentencePiece(model.getvalue()))


def _alphabet(
  texts: Iterable[str], normalizer: normalizers.Normalizer, limit: int
) -> list[str]:
  """The most frequent characters; words with another one are unknown."""
  raw: collections.Counter[str] = collections.Counter()
  for text in texts:
    raw.update(text)
  counts: collections.Counter[str] = collections.Counter()
  for char, count in raw.items():
    counts.update(dict.fromkeys(normalizer.normalize_str(char), count))
  found = [c for c in counts if not c.isspace()]
  return sorted(found, key=lambda c: (-counts[c], c))[: max(limit, 100)]


def _continuations(alphabet: list[str]) -> list[str]:
  """Pieces for characters inside a word, where BERT does not split at them."""
  alone = set(string.punctuation)
  return [
    f"##{c}"
    for c in alphabet
    if c not in alone and not "\u4e00" <= c <= "\u9fff"
  ]


def _check_size(vocab_size: int) -> None:
  if vocab_size <= len(SPECIALS):
    raise InputError(
      f"tokenizer.vocab_size={vocab_size}: wanted more than the"
      f" {len(SPECIALS)} special pieces"
    )
