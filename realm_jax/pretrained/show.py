"""A model as a person sees it in a terminal or in a notebook."""

import textwrap
from typing import Any

import jax

_WIDTH = 78  # columns
_SHOWN = 4  # names of a list


def in_words(pretrained: Any) -> str:
  """A `Pretrained` in a few lines: what it is, how large, what is with it."""
  c, parts = pretrained.config, _parts(pretrained.params)
  total, arrays = map(sum, zip(*parts.values(), strict=True))
  lines = [
    f"{type(pretrained.module).__name__}: {total:,} parameters in {arrays} arrays",
    f"{c.num_hidden_layers} layers of {c.hidden_size}, vocabulary"
    f" {c.vocab_size:,}, projected to {c.retriever_proj_size}",
    ", ".join(f"{name} {size:,}" for name, (size, _) in parts.items()),
    f"tokenizer: {_kind(pretrained.tokenizer)}; retriever:"
    f" {_kind(pretrained.retriever)}; index: {_shape(pretrained.block_emb)}",
  ]
  if pretrained.fresh:
    names = ", ".join(pretrained.fresh[:_SHOWN])
    more = ", …" if len(pretrained.fresh) > _SHOWN else ""
    lines.append(f"drawn, not read: {len(pretrained.fresh)} ({names}{more})")
  short = (textwrap.shorten(x, _WIDTH - 2, placeholder=" …") for x in lines)
  return "\n  ".join(short)


def as_html(params: Any) -> str | None:
  """Params as a tree to open and look into, by treescope.

  None where treescope is not installed (extra `inspect`): a notebook then shows
  the words.
  """
  try:
    import treescope
  except ImportError:
    return None
  return treescope.render_to_html(params)


def _parts(params: Any) -> dict[str, tuple[int, int]]:
  """{part: (parameters, arrays)} of the first level of a tree."""
  counted = {}
  for name, part in params.items():
    leaves = jax.tree.leaves(part)
    counted[name] = sum(leaf.size for leaf in leaves), len(leaves)
  return counted


def _kind(thing: Any) -> str:
  return "none" if thing is None else type(thing).__name__


def _shape(array: Any) -> str:
  return "none" if array is None else str(list(array.shape))
