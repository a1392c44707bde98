"""A step whose items say what happens to them; other processes import it."""

import dataclasses
import os

from realm_jax import files
from realm_jax.config import InputError


@dataclasses.dataclass(frozen=True)
class Write:
  """Writes each item of a part; "die" kills its process, "bad" is refused."""

  name: str = "toy"

  def split(self, part):
    yield from part

  def make(self, item, path):
    if item == "die":
      os._exit(3)
    if item == "bad":
      raise InputError("the item is bad")
    files.write_json(path, [item, os.getpid()])
