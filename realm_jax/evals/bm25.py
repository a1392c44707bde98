"""BM25 over the same blocks: the bar that every retriever is shown beside.

Title and text of a block are its words (lower case, English stop words left
out, no stemming). As a reader, BM25 answers with the title of its best block.
"""

from collections.abc import Iterable, Sequence

import bm25s
import numpy as np


class Bm25:
  """An index over blocks, in memory; ids are positions in `texts`."""

  def __init__(self, texts: Iterable[str]):
    """Indexes the texts (title and text of each block in one string)."""
    tokens = bm25s.tokenize(list(texts), show_progress=False)
    self._num_blocks = len(tokens.ids)
    # Nothing to index (an empty vocabulary) is no error: nothing is found.
    self._index = bm25s.BM25() if tokens.vocab else None
    if self._index is not None:
      self._index.index(tokens, show_progress=False)

  def search(self, queries: Sequence[str], k: int) -> np.ndarray:
    """Finds the k best blocks of each query.

    Returns:
      [B, k] int64 block ids, best first; -1 where no further block shares a
      word with the query.
    """
    found = np.full((len(queries), k), -1, np.int64)
    if self._index is None or not len(queries):
      return found
    width = min(k, self._num_blocks)
    words = bm25s.tokenize(list(queries), return_ids=False, show_progress=False)
    ids, scores = self._index.retrieve(words, k=width, show_progress=False)
    found[:, :width] = np.where(scores > 0, ids, -1)
    return found
