"""Special tokens by name: `tokenizer.pad_token`, `tokenizer.pad_token_id`, ..."""

from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import AddedToken

from realm_jax.config import InputError
from realm_jax.data import added_tokens

NAMES = (  # the order in which missing ones get their ids
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
)
ADDITIONAL = "additional_special_tokens"


class _Token:
  """One special token's text, or None."""

  def __set_name__(self, owner: type, name: str):
    self._name = name

  def __get__(self, tokenizer: Any, owner: type):
    if tokenizer is None:
      return self
    token = tokenizer.named_tokens[self._name]
    return None if token is None else str(token)

  def __set__(self, tokenizer: Any, value: str | AddedToken | None):
    tokenizer.named_tokens[self._name] = (
      None if value is None else _assigned(self._name, value)
    )


class _TokenId:
  """One special token's id, or None."""

  def __set_name__(self, owner: type, name: str):
    self._token = name.removesuffix("_id")

  def __get__(self, tokenizer: Any, owner: type):
    if tokenizer is None:
      return self
    return tokenizer.convert_tokens_to_ids(getattr(tokenizer, self._token))

  def __set__(self, tokenizer: Any, value: int | None):
    tokenizer.named_tokens[self._token] = (
      None if value is None else tokenizer.convert_ids_to_tokens(value)
    )


class SpecialTokens:
  """The special tokens of a tokenizer that converts tokens to ids and back.

  Attributes:
    named_tokens: name -> token, as `AddedToken` where it was given by its text.
    pad_token_type_id: token type of padding.
  """

  bos_token, bos_token_id = _Token(), _TokenId()
  eos_token, eos_token_id = _Token(), _TokenId()
  unk_token, unk_token_id = _Token(), _TokenId()
  sep_token, sep_token_id = _Token(), _TokenId()
  pad_token, pad_token_id = _Token(), _TokenId()
  cls_token, cls_token_id = _Token(), _TokenId()
  mask_token, mask_token_id = _Token(), _TokenId()
  pad_token_type_id = 0

  def init_special_tokens(self, arguments: Mapping[str, Any]) -> None:
    """Takes the special tokens out of a constructor's arguments."""
    self.named_tokens = dict.fromkeys(NAMES)
    self._additional: list[str | AddedToken] = []
    for name in NAMES:
      value = arguments.get(name)
      if isinstance(value, str):
        value = AddedToken(value, normalized=False, special=True)
      if value is not None:
        setattr(self, name, value)
    known = {str(t): t for t in self.added_tokens_decoder.values()}
    self.additional_special_tokens = [
      known.get(t, t) if isinstance(t, str) else t
      for t in _listed(arguments.get(ADDITIONAL) or ())
    ]

  @property
  def additional_special_tokens(self) -> list[str]:
    """Special tokens that have no name."""
    return [str(token) for token in self._additional]

  @additional_special_tokens.setter
  def additional_special_tokens(self, tokens: Iterable[str | AddedToken]):
    # The reference adds to those that are there already, and so do we.
    self._additional += [_assigned(ADDITIONAL, token) for token in tokens]

  @property
  def additional_special_tokens_ids(self) -> list[int]:
    """Their ids."""
    return self.convert_tokens_to_ids(self.additional_special_tokens)

  @additional_special_tokens_ids.setter
  def additional_special_tokens_ids(self, ids: Iterable[int]):
    self._additional = [self.convert_ids_to_tokens(i) for i in ids]

  @property
  def special_tokens_map(self) -> dict[str, str | list[str]]:
    """Name -> text of those that are set."""
    return {
      name: value
      for name in (*NAMES, ADDITIONAL)
      if (value := getattr(self, name))
    }

  @property
  def all_special_tokens_extended(self) -> list[str | AddedToken]:
    """All of them, each text once, in the order of NAMES."""
    named: dict[str, str | AddedToken] = {}
    for token in self.named_tokens.values():
      if token:
        named.setdefault(str(token), token)
    others = [token for token in self._additional if str(token) not in named]
    return [*named.values(), *others]

  @property
  def all_special_tokens(self) -> list[str]:
    """Texts of all of them."""
    return [str(token) for token in self.all_special_tokens_extended]

  @property
  def all_special_ids(self) -> list[int]:
    """Ids of all of them."""
    return self.convert_tokens_to_ids(self.all_special_tokens)

  def add_tokens(
    self,
    new_tokens: str | AddedToken | list[str | AddedToken],
    special_tokens: bool = False,
  ) -> int:
    """Adds tokens that text is never split inside; returns how many are new."""
    if not new_tokens:
      return 0
    if not isinstance(new_tokens, (list, tuple)):
      new_tokens = [new_tokens]
    return self._add_tokens(new_tokens, special_tokens)

  def add_special_tokens(
    self,
    special_tokens_dict: Mapping[str, Any],
    replace_additional_special_tokens: bool = True,
  ) -> int:
    """Names special tokens and adds those that the vocabulary lacks.

    Args:
      special_tokens_dict: name -> token; "additional_special_tokens" -> list.
      replace_additional_special_tokens: of no effect, as in the reference:
        the new ones come after those that are there.

    Returns:
      How many are new in the vocabulary.
    """
    del replace_additional_special_tokens
    added: list[AddedToken] = []
    for name, value in special_tokens_dict.items():
      if name == ADDITIONAL:
        known = self.additional_special_tokens
        new = [_stripping(t) for t in _listed(value) if str(t) not in known]
        self.additional_special_tokens = new
        added += new
      elif name in NAMES and isinstance(value, (str, AddedToken)):
        setattr(self, name, _stripping(value))
        added.append(_stripping(value))
      else:
        raise InputError(
          f"special token {name}={value!r}: wanted a text or an AddedToken"
          f" for one of {', '.join(NAMES)}, {ADDITIONAL}"
        )
    return self.add_tokens(added, special_tokens=True)


def _listed(tokens: Any) -> list[str | AddedToken]:
  if not isinstance(tokens, (list, tuple)) or not all(
    isinstance(token, (str, AddedToken)) for token in tokens
  ):
    raise InputError(f"{ADDITIONAL}={tokens!r}: wanted a list of tokens")
  return list(tokens)


def _assigned(name: str, value: Any) -> AddedToken:
  """A special token as an assignment makes it; "" is none."""
  if not isinstance(value, AddedToken) and (
    not isinstance(value, str) or not value
  ):
    raise InputError(f"{name}={value!r}: wanted a text or an AddedToken")
  return added_tokens.changed(_stripping(value), special=True)


def _stripping(token: str | AddedToken) -> AddedToken:
  """A token given by its text takes the spaces around it away."""
  if isinstance(token, AddedToken):
    return token
  return AddedToken(token, normalized=False, rstrip=True, lstrip=True)
