"""Tokens of blocks by id: the same from every mesh, and from the block store."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from realm_jax import sharding
from realm_jax.config import InputError
from realm_jax.data import blocks, tokenizer
from realm_jax.data.articles import Article
from realm_jax.plan import collectives
from realm_jax.retrieval import block_tokens
from realm_jax.retrieval.block_tokens import HostTokens
from realm_jax.retrieval.refresh import BlockEmbedder
from realm_jax.types import BlockTokens
from tests import launched
from tests import tiny_realm as tiny

C, ROWS, B, K = 13, 48, 8, 5  # 10 wordpieces a row, 12 with both lengths
_RUN = pathlib.Path(__file__).with_name("block_tokens_run.py")
MESHES = ((1, 1, 1), (8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 1, 8))


@pytest.fixture(scope="module")
def store_path(tmp_path_factory):
  """41 blocks, one an article, some longer than C."""
  rng = np.random.default_rng(0)

  def words(most):
    return " ".join(map(str, rng.integers(5, 60, rng.integers(1, most))))

  articles = [Article(str(i), words(4), words(15)) for i in range(41)]
  tok = tokenizer.train_wordpiece([a.text for a in articles] * 2, 90)
  path = tmp_path_factory.mktemp("store") / "blocks"
  blocks.write_block_store(path, articles, tok, 48)
  return path


@pytest.fixture(scope="module")
def store(store_path):
  return blocks.BlockStore(store_path)


@pytest.fixture(scope="module")
def tokens(store):
  return store.device_tokens(C, ROWS)


def ids(rows=B):
  found = np.random.default_rng(rows).integers(0, 41, (rows, K))
  found[:, 0] = -1
  found[1, 2:4] = 40  # the last, twice
  return found.astype(np.int32)


def by_hand(tokens, ids):
  found = jax.tree.map(lambda x: np.asarray(x)[np.maximum(ids, 0)], tokens)
  there = ids >= 0
  return BlockTokens(
    found.token_ids.astype(np.int32),
    found.title_lens * there,
    found.lens * there,
  )


def assert_same(got, want):
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_array_equal(x, y)
    assert x.dtype == y.dtype


def compiled(tokens, ids, mesh):
  if isinstance(tokens, BlockTokens):
    tokens = jax.tree.map(lambda x: sharding.shard_rows(x, mesh), tokens)
  ids = jax.device_put(ids, NamedSharding(mesh, P()))
  gather = functools.partial(block_tokens.gather_blocks, mesh=mesh)
  program = jax.jit(gather).lower(tokens, ids).compile()
  return collectives.collectives(program.as_text()), program(tokens, ids)


@pytest.mark.parametrize("sizes", MESHES)
@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_one_exchange_gathers_from_every_mesh(tokens, sizes, dtype):
  given = tokens.replace(token_ids=tokens.token_ids.astype(dtype))
  mesh = sharding.make_mesh(*sizes)
  sent, found = compiled(given, ids(), mesh)
  assert_same(found, by_hand(given, ids()))
  split = {s.data.shape for s in found.lens.addressable_shards}
  assert split == {(B // sharding.batch_ways(mesh), K)}
  kept = B // sharding.batch_ways(mesh) if sizes[2] == 1 else B
  size = kept * K * 12 * np.dtype(dtype).itemsize
  assert [c.bytes for c in sent] == [size] * (mesh.size > 1)
  # 11 columns and two lengths: not whole words
  odd = given.replace(token_ids=np.pad(given.token_ids, ((0, 0), (0, 1))))
  if sizes == (8, 1, 1):
    assert_same(compiled(odd, ids(), mesh)[1], by_hand(odd, ids()))


def test_a_batch_that_the_devices_do_not_divide_is_on_all_of_them(tokens):
  mesh = sharding.make_mesh(2, 2, 2)
  sent, found = compiled(tokens, ids(3), mesh)
  assert_same(found, by_hand(tokens, ids(3)))
  assert {s.data.shape for s in found.lens.addressable_shards} == {(3, K)}
  assert len(sent) == 1


@pytest.mark.parametrize("sizes", MESHES)
def test_the_host_gives_what_the_devices_have(store, tokens, sizes):
  host = HostTokens.of(store, C, ROWS)
  mesh = sharding.make_mesh(*sizes)
  for rows in (B, 3):
    sent, found = compiled(host, ids(rows), mesh)
    assert_same(found, by_hand(tokens, ids(rows)))
    assert not sent
  assert not jax.tree.leaves(host)  # nothing that a device would hold


def test_the_host_is_asked_in_every_part_of_a_batch(store, tokens):
  """As a step is: with gradients, in a loop, some of it computed twice."""
  mesh = sharding.make_mesh(4)

  def loss(weight, tokens, ids):
    @jax.checkpoint
    def of_part(weight, ids):
      found = block_tokens.gather_blocks(tokens, ids, mesh)
      mask = jnp.arange(C - 3) < found.lens[..., None]
      return jnp.where(mask, weight * found.token_ids, 0).sum()

    parts = jax.lax.scan(
      lambda total, ids: (total + of_part(weight, ids), None), 0.0, ids
    )
    return parts[0]

  placed = jax.tree.map(lambda x: sharding.shard_rows(x, mesh), tokens)
  parts = ids().reshape(2, 4, K)
  step = jax.jit(jax.value_and_grad(loss))
  host = HostTokens.of(store, C, ROWS)
  want = step(3.0, placed, parts)
  for _ in range(12):
    np.testing.assert_array_equal(step(3.0, host, parts), want)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)])
def test_all_blocks_are_embedded_from_the_host(store, tokens, sizes):
  """Slice by slice, the rows that only fill the last ones among them."""
  mesh = sharding.make_mesh(*sizes)
  embedder = BlockEmbedder(tiny.retrieval(mesh, 41), 3, mesh.size)
  params = sharding.replicate(tiny.params()["embedder"], mesh)
  small = tokens.replace(token_ids=tokens.token_ids % 53)  # tiny's vocabulary
  placed = jax.tree.map(lambda x: sharding.shard_rows(x, mesh), small)

  class Small:  # the same of the store
    tokens = store.tokens
    will_need = staticmethod(store.will_need)

    @staticmethod
    def take(ids, block_len):
      found = store.take(ids, block_len)
      return found.replace(token_ids=found.token_ids % 53)

  host = HostTokens.of(Small, C, ROWS)
  want = embedder.embed_all(params, placed)
  got = embedder.embed_all(params, host)
  assert got.sharding.is_equivalent_to(want.sharding, 2)
  np.testing.assert_array_equal(got, want)
  assert np.unique(np.asarray(got)[:41], axis=0).shape[0] > 30


def test_other_blocks_tokens_in_their_places(store, tokens):
  rows = np.roll(np.arange(ROWS), 7)
  for given in (tokens, HostTokens.of(store, C, ROWS)):
    found = block_tokens.gather_blocks(
      block_tokens.reorder(given, rows), ids() % ROWS
    )
    assert_same(found, by_hand(tokens, rows[ids() % ROWS]))


def test_a_host_that_cannot_be_asked_is_refused(monkeypatch):
  block_tokens.check_host()  # there is one

  def none(backend):
    raise RuntimeError(f"Unknown backend {backend}")

  monkeypatch.setattr(jax, "local_devices", none)
  with pytest.raises(
    InputError, match=r"host: .* add cpu to JAX_PLATFORMS=cpu"
  ):
    block_tokens.check_host()


def test_the_kernel_is_told_of_rows_once(store, monkeypatch):
  told = []

  class Mapped(bytes):
    def madvise(self, option, start, length):
      told.append((start, length))

  page = 4096
  lens = np.array([100, page // 2, 3 * page, 5, page])
  flat = np.zeros(lens.sum(), np.uint16)

  class Flat:
    base = type("Memmap", (), {"base": Mapped(flat.nbytes + 128)})
    nbytes, itemsize = flat.nbytes, 2

  monkeypatch.setattr(store.tokens, "flat", Flat)
  ends = np.append(0, np.cumsum(lens))
  monkeypatch.setattr(store.tokens, "offsets", ends)
  store.tokens.will_need(np.array([0, 1, 4]))
  # rows 0 and 1 are neighbours; row 4 begins behind 3 pages of row 2
  begin = (128 + 2 * ends[4]) // page * page
  end = -(-(128 + 2 * ends[5]) // page) * page
  assert told == [(0, 2 * page), (begin, end - begin)]
  store.tokens.will_need(np.array([], int))
  assert len(told) == 2


@pytest.mark.nightly  # two processes that import JAX
def test_two_processes_gather_what_one_does(store_path):
  code, said = launched.end(launched.start(str(_RUN), str(store_path)))
  assert code == 0, said
