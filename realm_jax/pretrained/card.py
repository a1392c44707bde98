"""The card of a saved model: what is known of it, and nothing else.

Its first line tells it from a text that somebody wrote, which is never
replaced.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from realm_jax.config import RealmConfig

FILE = "README.md"
_MARK = "<!-- written by realm_jax.save_pretrained and replaced by it -->"
_SIZES = (
  "hidden_size", "num_hidden_layers", "num_attention_heads",
  "intermediate_size", "hidden_act", "vocab_size", "max_position_embeddings",
  "retriever_proj_size", "pooling",
)  # fmt: skip
_UNKNOWN = "Not known: it was not read from a run.\n"


def is_ours(path: pathlib.Path) -> bool:
  """Whether a README.md is a card, so that a newer one may replace it."""
  with path.open(encoding="utf-8", errors="replace") as file:
    return file.readline().rstrip() == _MARK


def card(pretrained, config: RealmConfig) -> str:
  """The card as Markdown.

  Args:
    pretrained: load.Pretrained.
    config: as it is saved.
  """
  p = pretrained
  name = type(p.module).__name__
  model: dict[str, Any] = {
    "class": f"`realm_jax.{name}`, as transformers 4.34 names it",
    "params": sum(np.size(x) for x in jax.tree.leaves(p.params)),
  }
  model |= {field: getattr(config, field) for field in _SIZES}
  if p.tokenizer is not None:
    model["tokenizer"] = (
      f"{type(p.tokenizer).__name__}, {len(p.tokenizer)} wordpieces"
    )
  if p.block_emb is not None:
    blocks, size = np.shape(p.block_emb)
    model["index"] = f"{blocks:,} blocks of {size} numbers"
  if p.fresh:
    model["drawn, not trained"] = ", ".join(p.fresh)
  parts = [_MARK, f"# {name}", _about(name), "## Model", _table(model)]
  for title in ("training", "data"):
    facts = p.origin.get(title)
    parts += [f"## {title.capitalize()}", _table(facts) if facts else _UNKNOWN]
  return "\n".join(parts)


def _about(name: str) -> str:
  return f"""
A model of REALM ([Guu et al., 2020](https://arxiv.org/abs/2002.08909)).

```python
import realm_jax

model = realm_jax.load_pretrained(DIRECTORY)  # a {name}
```
"""


def _table(facts: Mapping[str, Any]) -> str:
  rows = ["", "| | |", "|---|---|"]
  rows += [f"| {key} | {_shown(value)} |" for key, value in facts.items()]
  return "\n".join([*rows, ""])


def _shown(value: Any) -> str:
  if isinstance(value, int) and not isinstance(value, bool):
    return f"{value:,}"
  return str(value).replace("|", "\\|").replace("\n", " ")
