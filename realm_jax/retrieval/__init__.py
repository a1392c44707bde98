"""Search over the blocks of a corpus, and the index that it searches."""
