"""BM25 over the same blocks: the bar that every retriever is shown beside.

Title and text of a block are its words (lower case, two letters or more, no
stop list and no stemming, so no language is favoured). As a reader, BM25 answers
with the title of its best block.
"""

import logging
from collections.abc import Iterable, Sequence

import bm25s
import numpy as np

from realm_jax.evals.retrieval import Found

# Anserini's defaults for passages. On the leads' questions they are better than
# bm25s' own (1.5, .75): recall@5 .750 against .730.
_K1, _B = 0.9, 0.4

logging.getLogger("bm25s").setLevel(logging.WARNING)


class Bm25:
  """An index over blocks, in memory; ids are positions in `texts`."""

  def __init__(self, texts: Iterable[str]):
    """Indexes the texts (title and text of each block in one string)."""
    tokens = _words(texts)
    self._num_blocks = len(tokens.ids)
    # Nothing to index (an empty vocabulary) is no error: nothing is found.
    self._index = bm25s.BM25(k1=_K1, b=_B) if tokens.vocab else None
    if self._index is not None:
      self._index.index(tokens, show_progress=False)

  def search(self, queries: Sequence[str], k: int) -> Found:
    """Finds the k best blocks of each query.

    Returns:
      Found [B, k]; -1 where no further block shares a word with the query.
    """
    shape = (len(queries), k)
    found = Found(np.full(shape, -1, np.int64), np.full(shape, -np.inf))
    if self._index is None or not len(queries):
      return found
    width = min(k, self._num_blocks)
    words = _words(queries, return_ids=False)
    ids, scores = self._index.retrieve(words, k=width, show_progress=False)
    found.ids[:, :width] = np.where(scores > 0, ids, -1)
    found.scores[:, :width] = np.where(scores > 0, scores, -np.inf)
    return found


def _words(texts, **options):
  return bm25s.tokenize(
    list(texts), stopwords=[], show_progress=False, **options
  )
