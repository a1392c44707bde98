"""Batches of like length embed what each block alone gives, in its place."""

import jax
import numpy as np
import pytest

from realm_jax import sharding
from realm_jax.plan import flops
from realm_jax.retrieval import length_buckets
from realm_jax.retrieval.length_buckets import LengthBuckets
from realm_jax.types import BlockTokens
from tests import tiny_realm as tiny

LONG = 31  # C: two widths, 16 and 31
NUM = 29


def tokens():
  """Blocks of all lengths up to LONG - 3, in no order."""
  rng = np.random.default_rng(4)
  lens = rng.permutation(np.arange(NUM) % (LONG - 3) + 1).astype(np.int32)
  ids = rng.integers(5, tiny.SIZES.vocab_size, (NUM, LONG - 3))
  ids[np.arange(LONG - 3) >= lens[:, None]] = tiny.SPECIALS.pad
  return BlockTokens(ids.astype(np.uint16), np.minimum(lens, 2), lens)


def one_by_one(blocks):
  """[NUM, P], every block padded to LONG."""
  params = {"embedder": tiny.params()["embedder"]}
  return jax.jit(tiny.retrieval().embed_blocks)(params, blocks)


def test_widths():
  def widths(block_len, *args):
    return LengthBuckets(tiny.retrieval(), block_len, 4, *args).widths

  assert widths(64) == (16, 32, 48, 64)
  assert widths(31) == (16, 31)
  assert widths(288) == tuple(range(24, 289, 24))
  assert widths(300) == (*range(32, 289, 32), 300)
  assert widths(288, 1) == (288,)
  assert widths(10) == (10,)


@pytest.mark.parametrize("num_devices", [None, 1, 8])
def test_embeds_each_block_in_its_place(num_devices):
  mesh = num_devices and sharding.make_mesh(num_devices)
  params = tiny.params()["embedder"]
  if mesh:
    params = sharding.replicate(params, mesh)
  buckets = LengthBuckets(tiny.retrieval(mesh), LONG, 8)
  seen = []
  got = buckets.embed(params, tokens(), lambda *batch: seen.append(batch))
  assert seen == [(8, 31), (8, 31), (8, 16), (5, 16)]
  np.testing.assert_allclose(got, one_by_one(tokens()), rtol=1e-4, atol=1e-5)


def test_less_padding_than_without():
  buckets = LengthBuckets(tiny.retrieval(), LONG, 8)
  lens = np.sort(tokens().lens)
  # 29 blocks in four batches of eight rows, the longest of each batch:
  assert [lens[i] + 3 for i in (28, 20, 12, 4)] == [31, 23, 15, 7]
  used = (lens + 3).sum()
  assert buckets.padding(tokens().lens) == 1 - used / (8 * (2 * 31 + 2 * 16))
  whole = LengthBuckets(tiny.retrieval(), LONG, 8, num_widths=1)
  assert whole.padding(tokens().lens) == 1 - used / (8 * 4 * 31)


def test_no_blocks():
  none = jax.tree.map(lambda x: x[:0], tokens())
  params = tiny.params()["embedder"]
  emb = LengthBuckets(tiny.retrieval(), LONG, 8).embed(params, none)
  assert emb.shape == (0, tiny.SIZES.retriever_proj_size)


class Vectors:
  """What a device computes; says when somebody waits for it."""

  def __init__(self, number, said):
    self.number, self.said = number, said

  def copy_to_host_async(self):
    self.said.append(("on its way", self.number))

  def __array__(self, dtype=None, copy=None):
    self.said.append(("awaited", self.number))
    return np.zeros((2, tiny.SIZES.retriever_proj_size), np.float32)


def test_the_device_has_its_next_batch_before_one_is_awaited(monkeypatch):
  said = []

  def embed(retrieval, params, batch):
    del retrieval, params
    assert isinstance(batch.token_ids, jax.Array)  # it was sent
    return Vectors(sum(what == "on its way" for what, _ in said), said)

  monkeypatch.setattr(length_buckets, "_embed", embed)
  LengthBuckets(tiny.retrieval(), LONG, 2).embed({}, tokens())
  awaited = [i for i, (what, _) in enumerate(said) if what == "awaited"]
  assert [said[i][1] for i in awaited] == list(range(15))
  for number, i in enumerate(awaited[:-1]):
    assert ("on its way", number + 1) in said[:i]


def test_flops_of_a_batch_grow_with_its_width():
  """Of one layer, whose result is read at [CLS] alone: keys, values, scores."""
  buckets = LengthBuckets(tiny.retrieval(), LONG, 8)
  narrow, wide = (
    flops.count(buckets.traced(tiny.params()["embedder"], tokens(), w).jaxpr)[0]
    for w in (16, 31)
  )
  d = tiny.SIZES.hidden_size
  assert wide - narrow == 8 * (31 - 16) * (2 * d * 2 * d + 2 * 2 * d)
