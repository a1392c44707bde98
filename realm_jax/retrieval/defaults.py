"""Numbers that builds and commands share; to name them loads no JAX."""

KEEP = 2  # versions kept on disk
CHUNK_BLOCKS = 4096  # blocks of a chunk: what a kill costs at the most
