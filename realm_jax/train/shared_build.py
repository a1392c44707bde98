"""One build of an index version, shared by workers that come and go.

Each claims a chunk at a time by a lock that the kernel frees when its holder
dies, so a dead worker's chunk is another one's, and no finished chunk is
embedded again. The last to end publishes.
"""

import collections
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from realm_jax import sharding
from realm_jax.retrieval import staging
from realm_jax.train import build_index
from realm_jax.train.build_index import Source
from realm_jax.train.metrics import note


@contextlib.contextmanager
def joined(
  workdir: str | os.PathLike,
  name: str,
  chunk_blocks: int,
  choose: Callable[[dict[str, Any] | None, bool], Source | None],
) -> Iterator[tuple[staging.Lock, staging.Staging, Source] | None]:
  """Takes part in the build that is under way, or begins one.

  Args:
    workdir: the run.
    name: of the worker.
    chunk_blocks: of a build that it begins.
    choose: given the identity of the build that is there, if there is one, and
      whether nobody else is at work; returns what to build, or None.

  Yields:
    The lock, shared; the build; what it is of. None: there is nothing to do
    here and now.

  Raises:
    staging.Busy: somebody is alone at work.
  """
  with contextlib.ExitStack() as stack:
    lock = stack.enter_context(staging.lock(workdir, shared=True))
    alone = lock.alone()
    if not alone:
      _share(lock)
    held = staging.unfinished(workdir)
    source = choose(held, alone)
    if source is None:
      yield None
      return
    same = held and held["params_step"] == source.manifest["params_step"]
    chunk_blocks = held["chunk_blocks"] if same else chunk_blocks
    identity = {**source.manifest, "chunk_blocks": chunk_blocks}
    if not alone and identity != held:
      yield None  # others build something else
      return
    stage = stack.enter_context(
      staging.Staging(workdir, identity, job=name, alone=alone, say=note)
    )
    size = len(source.store), source.buckets.size
    stage.open_rows(size, np.float32, chunk_blocks)
    if alone:
      _share(lock)
    ours = staging.unfinished(workdir) == identity
    yield (lock, stage, source) if ours else None


def embed_unclaimed(
  source: Source,
  stage: staging.Staging,
  on_chunk: Callable[[int, int], None],
  on_blocks: Callable[[int, int], None],
  wait: Callable[[], None],
) -> None:
  """Embeds chunks that nobody else does, until all are finished.

  Args:
    source: what is embedded.
    stage: with open rows.
    on_chunk: called with the number of finished chunks, and of all.
    on_blocks: called as blocks are embedded.
    wait: called where others are at all that is left.
  """
  finished, total = stage.finished(), stage.num_chunks
  pending = collections.deque(c for c in range(total) if c not in finished)
  params = sharding.replicate(source.params, source.mesh)
  on_chunk(total - len(pending), total)
  not_ours = 0  # the last so many that were looked at
  while pending:
    chunk = pending.popleft()
    with stage.claim(chunk) as mine:
      if mine and not stage.is_finished(chunk):
        build_index.embed_chunk(
          source, source.store, stage, params, chunk, on_blocks
        )
    if mine:
      not_ours = 0
      on_chunk(total - len(pending), total)
      continue
    pending.append(chunk)
    not_ours += 1
    if not_ours == len(pending):
      wait()
      not_ours = 0


def _share(lock: staging.Lock) -> None:
  if not lock.share():
    raise staging.Busy("another builder is at work")
