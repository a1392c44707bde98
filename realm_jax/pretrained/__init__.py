"""Models from a directory and back, and questions answered with them.

The one place where configuration, parameters, tokenizer, block records and
index meet.
"""

from realm_jax.pretrained.answer import find_evidence, open_qa
from realm_jax.pretrained.load import KINDS, Pretrained, load_pretrained
from realm_jax.pretrained.save import save_pretrained

__all__ = [
  "KINDS",
  "Pretrained",
  "find_evidence",
  "load_pretrained",
  "open_qa",
  "save_pretrained",
]
