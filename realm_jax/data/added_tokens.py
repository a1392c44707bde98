"""Tokens that text is never split inside, for the slow tokenizer.

The fast one leaves them to the `tokenizers` library, whose `AddedToken` says of
each: `lstrip`, `rstrip` (takes the spaces beside it), `single_word` (only
between spaces), `normalized` (is matched in lower-cased text), `special`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import AddedToken


def changed(token: AddedToken, **fields: Any) -> AddedToken:
  """A copy of a token with some of its fields replaced."""
  return AddedToken(**{**token.__getstate__(), **fields})


def added(token: str | AddedToken, special: bool, lower: bool) -> AddedToken:
  """A token as the slow tokenizer adds it.

  Args:
    token: a text stands for a token that takes the spaces beside it.
    special: makes it a special token.
    lower: whether the tokenizer lower-cases text.
  """
  if isinstance(token, str):
    token = AddedToken(token, normalized=not special, rstrip=True, lstrip=True)
  token = changed(token, special=token.special or special)
  if lower and token.normalized and not token.special:
    return changed(token, content=token.content.lower())
  return token


def lower(
  text: str, special_tokens: Iterable[str], tokens: Iterable[AddedToken]
) -> str:
  """Lower case, except of special and of normalized added tokens in a text."""
  kept = [
    *special_tokens,
    *(t.content for t in tokens if t.normalized and not t.special),
  ]
  parts = _split(text, kept)
  # Char by char: a "Σ" that ends a word becomes "σ", as in the reference.
  parts[::2] = ["".join(map(str.lower, part)) for part in parts[::2]]
  return "".join(parts)


def split(text: str, tokens: Mapping[str, AddedToken]) -> list[str]:
  """Added tokens and the parts between them, without the spaces they take."""
  # Where several begin, the longest.
  longest_first = sorted(tokens, key=len, reverse=True)
  parts = [part for part in _split(text, longest_first) if part]
  for i, part in enumerate(parts):
    if part not in tokens:
      continue
    token = tokens[part]
    before = parts[i - 1] if i else ""
    after = parts[i + 1] if i + 1 < len(parts) else ""
    if token.rstrip and after:
      parts[i + 1] = after.lstrip()
    if token.lstrip and before:
      parts[i - 1] = before.rstrip()
    if token.single_word and before and before[-1] != " ":
      parts[i - 1] += part
      parts[i] = ""
    elif token.single_word and after and after[0] != " ":
      parts[i + 1] = part + parts[i + 1]
      parts[i] = ""
  return [part for part in parts if part]


def _split(text: str, tokens: Iterable[str]) -> list[str]:
  """Parts of a text; those with an odd index are the tokens."""
  pattern = "|".join(re.escape(token) for token in tokens if token)
  return re.split(f"({pattern})", text) if pattern else [text]
