"""JSON that says one thing: UTF-8, no key twice, no bottomless nesting."""

import json
from typing import Any

from realm_jax.config import InputError


def parse_json(text: bytes, place: str) -> Any:
  """The value of a JSON text; `place` names it in messages.

  Raises:
    InputError: not UTF-8, not JSON, a key that an object has twice.
  """
  try:
    return json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
  except _Twice as e:
    raise InputError(
      f"{place}: the key {e.key[:60]!r} is there twice: keep one"
    ) from e
  except RecursionError as e:
    raise InputError(f"{place}: JSON nested too deeply to be meant") from e
  except ValueError as e:  # also UnicodeDecodeError and a number of 5000 digits
    raise InputError(f"{place}: not JSON ({e}); get or write it anew") from e


class _Twice(Exception):
  def __init__(self, key: str):
    super().__init__(key)
    self.key = key


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  value = {}
  for key, item in pairs:
    if key in value:
      raise _Twice(key)
    value[key] = item
  return value
