"""Answers that are regular expressions, as CuratedTREC has them.

They are read as that data set's scorers read them: in any case, Unicode, `^`
and `$` at every line. A reader cannot be trained on a pattern, so what it
matches in the blocks stands in for it.
"""

import collections
import functools
import itertools
import re
from collections.abc import Iterable, Sequence

_FLAGS = re.IGNORECASE | re.UNICODE | re.MULTILINE
_CHUNK = 4096  # blocks searched with one call of a pattern


@functools.lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern | None:
  """The pattern, ready to match; None if it is no regular expression."""
  try:
    return re.compile(pattern, _FLAGS)
  except (re.error, OverflowError, RecursionError):
    return None


def find_spans(
  answers: Sequence[Sequence[str]], texts: Iterable[str], limit: int
) -> list[tuple[str, ...]]:
  """What patterns match in some texts.

  Every text is searched for every pattern, a million characters in some 40 ms
  a pattern.

  Args:
    answers: of each question its patterns; one that is no regular expression
      matches nothing.
    texts: of all blocks; gone through once.
    limit: matches kept for a question.

  Returns:
    Of each question the texts that its patterns match, the most frequent
    first.
  """
  patterns = [[p for a in row if (p := compiled(a))] for row in answers]
  counts = [collections.Counter() for _ in answers]
  texts = iter(texts)
  while chunk := list(itertools.islice(texts, _CHUNK)):
    joined = "\n".join(chunk)
    for found, row in zip(counts, patterns, strict=True):
      for pattern in row:
        found.update(m.group().strip() for m in pattern.finditer(joined))
  return [_most_frequent(found, limit) for found in counts]


def _most_frequent(found: collections.Counter, limit: int) -> tuple[str, ...]:
  """Ties in the order of the alphabet; nothing empty, nothing of two blocks."""
  whole = [text for text in found if text and "\n" not in text]
  return tuple(sorted(whole, key=lambda text: (-found[text], text))[:limit])
