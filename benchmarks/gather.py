"""What a step waits for its candidates' tokens: from a device, from the host.

  python -m benchmarks.gather [--blocks=2000000] [--batch=512] [--rounds=5]

A block store of made-up wordpieces, and the gather of a batch's candidates (other
blocks in each round) by itself, compiled; medians of interleaved rounds, ms.

  device     tokens on the device (config.block_tokens=device)
  host       memory-mapped (host), the pages in memory
  cold       memory-mapped, none of the pages in memory
  untold     as cold, the kernel not told of the rows beforehand
"""

import gc
import json
import os
import pathlib
import tempfile
import time

import jax
import numpy as np
from absl import flags

from benchmarks import start
from realm_jax.data.block_writer import RAGGED
from realm_jax.data.blocks import BlockStore
from realm_jax.data.packing import NUM_SPECIALS
from realm_jax.retrieval import block_tokens
from realm_jax.retrieval.block_tokens import HostTokens

_MEAN = 230  # wordpieces of a block, of C at the most


def make_store(folder: pathlib.Path, count: int, block_len: int) -> None:
  """Writes the files of a block store that has nothing but tokens."""
  rng = np.random.default_rng(0)
  lens = rng.integers(2 * _MEAN - block_len, block_len - NUM_SPECIALS, count)
  for name, kind in RAGGED.items():
    ends = np.zeros(count + 1, np.int64)
    if name == "tokens":
      ends[1:] = np.cumsum(lens)
    flat = rng.integers(5, 30_000, ends[-1], kind or np.uint16)
    np.save(folder / f"{name}.npy", flat)
    np.save(folder / f"{name}.offsets.npy", ends)
  np.save(folder / "title_lens.npy", np.full(count, 3, np.int32))
  np.save(folder / "articles.npy", np.arange(count, dtype=np.int32))
  (folder / "meta.json").write_text(json.dumps({"pad_id": 0}))
  os.sync()  # what is not on the disk stays in memory


def forget(folder: pathlib.Path) -> None:
  """Has the kernel drop the pages of all files; nobody may have them mapped."""
  gc.collect()
  for path in folder.iterdir():
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


class Untold(BlockStore):
  """Of which nobody tells the kernel what is read next."""

  def will_need(self, ids: np.ndarray) -> None:
    """Nothing."""


def main(f) -> None:
  """Measures all."""
  count, c = f.blocks, f.block_len
  shape = f.batch, f.candidates
  rng = np.random.default_rng(1)
  gather = jax.jit(block_tokens.gather_blocks)
  seconds = {name: [] for name in ("device", "host", "cold", "untold")}

  def measure(name, tokens, ids):
    compiled = gather.lower(tokens, ids).compile()
    began = time.perf_counter()
    jax.block_until_ready(compiled(tokens, ids))
    seconds[name].append(time.perf_counter() - began)

  with tempfile.TemporaryDirectory(dir=f.folder or None) as name:
    folder = pathlib.Path(name)
    make_store(folder, count, c)
    on_device = jax.device_put(BlockStore(folder).device_tokens(c))
    for _ in range(f.rounds + 1):  # the first warms up
      ids = rng.integers(0, count, shape, np.int32)
      measure("device", on_device, ids)
      for way, kind in (("untold", Untold), ("cold", BlockStore)):
        forget(folder)
        host = HostTokens.of(kind(folder), c, count)
        measure(way, host, ids)
        if way == "cold":
          measure("host", host, ids)
        del host
        gather.clear_cache()
  print(
    f"{count} blocks, C={c}, B, K = {shape}, {jax.devices()[0].device_kind}"
  )
  for name, spent in seconds.items():
    print(f"{name:8} {1e3 * np.median(spent[1:]):8.1f} ms")


if __name__ == "__main__":
  flags.DEFINE_integer("blocks", 2_000_000, "in the store")
  flags.DEFINE_integer("block_len", 288, "C")
  flags.DEFINE_integer("batch", 512, "B")
  flags.DEFINE_integer("candidates", 8, "K")
  flags.DEFINE_integer("rounds", 5, "of each")
  flags.DEFINE_string("folder", "", 'on the disk to measure; "": the system\'s')
  start.run(main)
