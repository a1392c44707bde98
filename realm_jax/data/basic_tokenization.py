"""BERT's two steps from text to wordpieces, in Python: words, then pieces.

What a character is (control, space, punctuation, accent) is asked of Python's
`unicodedata`, as the reference's slow tokenizer does, so characters newer than
the interpreter's Unicode count as control characters and vanish.
"""

import string
import unicodedata
from collections.abc import Collection, Iterable, Iterator

_IDEOGRAPHS = (
  (0x4E00, 0x9FFF),
  (0x3400, 0x4DBF),
  (0x20000, 0x2A6DF),
  (0x2A700, 0x2B73F),
  (0x2B740, 0x2B81F),
  (0x2B820, 0x2CEAF),
  (0xF900, 0xFAFF),
  (0x2F800, 0x2FA1F),
)


class BasicTokenizer:
  """Text to words: cleaned, lower-cased, split at spaces and punctuation.

  Attributes:
    never_split: words that are left as they are.
    strip_accents: None strips them where `do_lower_case`.
  """

  def __init__(
    self,
    do_lower_case: bool = True,
    never_split: Iterable[str] | None = None,
    tokenize_chinese_chars: bool = True,
    strip_accents: bool | None = None,
  ):
    self.do_lower_case = do_lower_case
    self.never_split = set(never_split or ())
    self.tokenize_chinese_chars = tokenize_chinese_chars
    self.strip_accents = strip_accents

  def tokenize(self, text: str, never_split: Iterable[str] = ()) -> list[str]:
    """Words of a text; `never_split` adds to the attribute."""
    whole = self.never_split.union(never_split)
    text = _clean(text)
    if self.tokenize_chinese_chars:
      text = "".join(f" {c} " if _is_ideograph(c) else c for c in text)
    words = []
    for word in text.split():
      if word in whole:
        words.append(word)
      elif (normal := self._normalize(word)) in whole:
        words.append(normal)
      else:
        words += _split_at_punctuation(normal)
    return " ".join(words).split()

  def _normalize(self, word: str) -> str:
    strip = self.strip_accents
    if self.do_lower_case:
      word, strip = word.lower(), strip is not False
    return _without_accents(word) if strip else word


class WordPieceTokenizer:
  """Words to the longest pieces of a vocabulary, from the left.

  Attributes:
    max_input_chars_per_word: a longer word is unknown.
  """

  def __init__(
    self,
    vocab: Collection[str],
    unk_token: str,
    max_input_chars_per_word: int = 100,
  ):
    self.vocab = vocab
    self.unk_token = unk_token
    self.max_input_chars_per_word = max_input_chars_per_word

  def tokenize(self, text: str) -> list[str]:
    """Pieces of the words of a text, which only spaces separate."""
    return [piece for word in text.split() for piece in self._pieces(word)]

  def _pieces(self, word: str) -> list[str]:
    if len(word) > self.max_input_chars_per_word:
      return [self.unk_token]
    pieces, start = [], 0
    while start < len(word):
      for end in range(len(word), start, -1):
        piece = ("##" if start else "") + word[start:end]
        if piece in self.vocab:
          break
      else:
        return [self.unk_token]
      pieces.append(piece)
      start = end
    return pieces


def _clean(text: str) -> str:
  return "".join(" " if _is_space(c) else c for c in text if not _is_dropped(c))


def _is_space(char: str) -> bool:
  return char in " \t\n\r" or unicodedata.category(char) == "Zs"


def _is_dropped(char: str) -> bool:
  if char in "\t\n\r":
    return False
  return char == "\ufffd" or unicodedata.category(char).startswith("C")


def _is_ideograph(char: str) -> bool:
  return any(first <= ord(char) <= last for first, last in _IDEOGRAPHS)


def _is_punctuation(char: str) -> bool:
  return char in string.punctuation or unicodedata.category(char)[0] == "P"


def _without_accents(word: str) -> str:
  decomposed = unicodedata.normalize("NFD", word)
  return "".join(c for c in decomposed if unicodedata.category(c) != "Mn")


def _split_at_punctuation(word: str) -> Iterator[str]:
  """Runs of other characters; each punctuation mark is a word of its own."""
  start = 0
  for i, char in enumerate(word):
    if _is_punctuation(char):
      if start < i:
        yield word[start:i]
      yield char
      start = i + 1
  if start < len(word):
    yield word[start:]
