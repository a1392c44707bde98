"""What preparation left out and why, as a table and as a file."""

from collections.abc import Mapping, Sequence
from typing import Any

from realm_jax.data import pages

FILE = "drops.json"
_SENTENCES, _KEPT = "sentences", "kept"
_FIRST = (pages.PAGES, pages.ARTICLES, _SENTENCES, _KEPT)


def drops(
  sources: Mapping[str, Mapping[str, int]], texts: Sequence[dict[str, Any]]
) -> dict[str, Any]:
  """What drops.json holds.

  Args:
    sources: counts of each source of the corpus, see merge_block_stores.
    texts: meta.json of each text.

  Returns:
    "corpus" and "text", each source -> what was counted -> how often.
  """
  return {
    "corpus": {
      name: {what: count for what, count in counts.items() if count}
      for name, counts in sources.items()
    },
    "text": {
      meta["source"]: {
        _SENTENCES: meta["num_read"],
        _KEPT: meta["num_records"],
        **meta["dropped"],
      }
      for meta in texts
    },
  }


def table(counted: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
  """drops.json for people: a line a reason."""
  lines = []
  for part, sources in counted.items():
    for source, counts in sources.items():
      lines.append(f"{part} {source}")
      lines += [f"  {count:>12,}  {what}" for what, count in _ordered(counts)]
  return "\n".join(lines)


def _ordered(counts: Mapping[str, int]) -> list[tuple[str, int]]:
  """First what was read and kept."""
  first = {what: i for i, what in enumerate(_FIRST)}
  return sorted(counts.items(), key=lambda x: (first.get(x[0], len(first)), x))
