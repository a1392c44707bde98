"""From ids to sequences on the device, against slow versions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.config import InputError, RealmConfig
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.retrieval import block_tokens, candidates
from realm_jax.retrieval.candidates import Specials
from realm_jax.types import BlockTokens, Inputs

SPECIALS = Specials(pad=0, cls=2, sep=3, mask=4)
C = 12  # block length, 9 wordpieces of title and body
TITLES = [[10, 11], [], [12], [13] * 9]
BODIES = [[20, 21, 22], [23], [24, 25, 26, 27, 28, 29, 30, 31], []]


def store():
  n = len(TITLES)
  rows = np.zeros((n, C - 3), np.uint16)
  for i, (title, body) in enumerate(zip(TITLES, BODIES, strict=True)):
    rows[i, : len(title) + len(body)] = title + body
  lens = np.array([len(t + b) for t, b in zip(TITLES, BODIES, strict=True)])
  titles = np.array([len(t) for t in TITLES])
  return BlockTokens(rows, titles.astype(np.int32), lens.astype(np.int32))


def query(*rows, width):
  ids = np.zeros((len(rows), width), np.int32)
  mask = np.zeros_like(ids)
  for i, row in enumerate(rows):
    ids[i, : len(row)] = row
    mask[i, : len(row)] = 1
  return Inputs(ids, mask, np.zeros_like(ids))


def test_block_inputs():
  ids = np.array([[0, 1, -1], [2, 3, 0]])
  got = candidates.block_inputs(
    block_tokens.gather_blocks(jax.tree.map(jnp.asarray, store()), ids),
    SPECIALS,
  )
  for place, block in np.ndenumerate(ids):
    title, body = ([], []) if block < 0 else (TITLES[block], BODIES[block])
    want = [2, *title, 3, *body, 3]
    n = len(want)
    assert got.input_ids[place][:n].tolist() == want
    assert not got.input_ids[place][n:].any()
    assert got.attention_mask[place].tolist() == [1] * n + [0] * (C - n)
    segments = [0] * (len(title) + 2) + [1] * (len(body) + 1)
    assert got.token_type_ids[place][:n].tolist() == segments


def test_join_reads_as_one_contiguous_sequence():
  """The encoder sees no difference to [CLS] query [SEP] body [SEP]."""
  config = RealmConfig(
    vocab_size=40,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=32,
    initializer_range=0.5,
  )
  encoder = RealmKnowledgeAugEncoder(config)
  rows = [[2, 5, 4, 6, 3], [2, 7, 3]]
  queries = query(*rows, width=7)
  ids = np.array([[-1, 0, 2], [2, 1, 3]])
  joint_len = 9  # cuts bodies, the longer query's more
  blocks = block_tokens.gather_blocks(jax.tree.map(jnp.asarray, store()), ids)
  joint, body_mask = candidates.join(queries, blocks, joint_len, SPECIALS)
  flat = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), joint)
  variables = jax.jit(encoder.init)(jax.random.key(0), flat.input_ids)
  positions = np.full((6, 1), 2)
  read = jax.jit(
    functools.partial(encoder.apply, method=RealmKnowledgeAugEncoder.mlm_logits)
  )
  got = read(variables, flat, positions)
  whole, segments = [], np.zeros_like(flat.input_ids)
  for i, (place, block) in enumerate(np.ndenumerate(ids)):
    row = rows[place[0]]
    room = joint_len - len(row) - 1
    body = [] if block < 0 else BODIES[block][:room]
    whole.append([*row, *body, 3])
    segments[i, len(row) : len(row) + len(body) + 1] = 1
    shown = np.asarray(joint.input_ids[place])[np.asarray(body_mask[place])]
    assert shown.tolist() == body
  contiguous = query(*whole, width=segments.shape[1])
  want = read(variables, contiguous.replace(token_type_ids=segments), positions)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ("own", "want"),
  [
    (-1, [-1, 7, 5, 9]),
    (5, [-1, 7, 9, 2]),
    (2, [-1, 7, 5, 9]),
    (8, [-1, 7, 5, 9]),
  ],
)
def test_drop_trivial(own, want):
  found = jnp.array([[7, 5, 9, 2]])
  got = candidates.drop_trivial(found, jnp.array([own]), 4)
  assert got[0].tolist() == want


def test_find_answers():
  rng = np.random.default_rng(0)
  body = rng.integers(1, 4, (2, 3, 11))
  lens = rng.integers(2, 12, (2, 3))
  mask = np.arange(11) < lens[..., None]
  answers = rng.integers(1, 4, (2, 4, 5))
  answer_lens = np.array([[1, 2, 0, 3], [2, 2, 5, 1]])
  found, ends = candidates.find_answers(body, mask, answers, answer_lens)
  for b, k, a, t in np.ndindex(found.shape):
    n = answer_lens[b, a]
    here = body[b, k, : lens[b, k]].tolist()[t : t + n]
    want = n > 0 and here == answers[b, a, :n].tolist()
    assert found[b, k, a, t] == want, (b, k, a, t)
    assert ends[b, 0, a, t] == t + n - 1
  assert 0 < found.sum() < found.size


def test_retriever_that_looks_past_masks():
  from realm_jax.models.embedder import RealmEmbedder

  sizes = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "retriever_proj_size": 6,
    "max_position_embeddings": 16,
    "pooling": "mean",
    "initializer_range": 0.5,
  }
  blind = RealmEmbedder(RealmConfig(**sizes, query_mask_token=False))
  seeing = RealmEmbedder(RealmConfig(**sizes))
  one, other = ([2, 7, 4, 9, 3], [2, 7, 30, 9, 3])
  params = jax.jit(blind.init)(jax.random.key(0), np.array([one]))["params"]

  @functools.partial(jax.jit, static_argnums=0)
  def embed_query(embedder, query):
    seen = candidates.visible(query, embedder, SPECIALS)
    return candidates.embed(embedder, params, seen, None)

  def embed(embedder, row):
    return embed_query(embedder, query(row, width=6))

  hidden = query(one, width=6)
  hidden = hidden.replace(attention_mask=np.array([[1, 1, 0, 1, 1, 0]]))
  want = jax.jit(candidates.embed, static_argnums=0)(
    blind, params, hidden, None
  )
  np.testing.assert_allclose(embed(blind, one), want, rtol=1e-5)
  assert not np.allclose(embed(seeing, one), want)
  np.testing.assert_allclose(
    embed(blind, other), embed(seeing, other), rtol=1e-5
  )


def test_queries_that_are_not_finite_are_refused():
  queries = np.array([[1, 2], [np.nan, 3]], np.float32)
  with pytest.raises(InputError, match=r"queries: 1 of 2 .* row 1"):
    candidates.search(np.ones((5, 2), np.float32), queries, 3, 5)
