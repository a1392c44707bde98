"""Tiny models, blocks and batches, of sizes that are pairwise different."""

import dataclasses
import functools

import jax
import numpy as np

from realm_jax.config import RealmConfig
from realm_jax.models import bert
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.reader import RealmReader
from realm_jax.retrieval.candidates import Specials
from realm_jax.retrieval.open_qa import OpenQa
from realm_jax.retrieval.realm import Realm
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.types import BlockTokens, Inputs, PretrainBatch, QaBatch

SPECIALS = Specials(pad=0, cls=2, sep=3, mask=4)
B, K, Q, C, L, M, N = 8, 4, 7, 15, 14, 3, 37
SLICE = 5  # blocks a device embeds at a time: 40 rows on 1 device and on 8
ROWS = 40
BEAM, READ = 6, 3  # blocks found and blocks read for a question
SIZES = RealmConfig(
  vocab_size=53,
  hidden_size=12,
  num_hidden_layers=2,
  num_attention_heads=3,
  intermediate_size=20,
  retriever_proj_size=10,
  max_position_embeddings=32,
  hidden_dropout_prob=0.0,
  attention_probs_dropout_prob=0.0,
  span_hidden_size=11,
  max_span_width=5,
  reader_beam_size=READ,
)
# A step holds the embedder four times: a second layer would double its program.
EMBEDDER = dataclasses.replace(SIZES, num_hidden_layers=1)


def retrieval(mesh=None, num_blocks=N, **more) -> Retrieval:
  """The search over `blocks()`."""
  return Retrieval(
    RealmEmbedder(EMBEDDER), SPECIALS, num_blocks, 0.3, mesh, **more
  )


def realm(mesh=None, **more) -> Realm:
  """A Realm of K candidates."""
  encoder = RealmKnowledgeAugEncoder(SIZES)
  return Realm(retrieval(mesh, **more), encoder, K, L)


def open_qa(mesh=None, embed_found=False, **more) -> OpenQa:
  """An OpenQa that reads READ blocks."""
  return OpenQa(retrieval(mesh, **more), RealmReader(SIZES), L, embed_found)


def blocks(num_blocks=N, num_rows=ROWS, seed=0) -> BlockTokens:
  """Random blocks, some with no title, no body, or a body that is cut."""
  rng = np.random.default_rng(seed)
  lens = np.zeros(num_rows, np.int32)
  lens[:num_blocks] = rng.integers(1, C - 3 + 1, num_blocks)
  titles = rng.integers(0, np.minimum(lens, 3) + 1).astype(np.int32)
  ids = rng.integers(5, SIZES.vocab_size, (num_rows, C - 3))
  ids[np.arange(C - 3) >= lens[:, None]] = SPECIALS.pad
  return BlockTokens(ids.astype(np.uint16), titles, lens)


def queries(rng) -> Inputs:
  """`[CLS] text [SEP]` of random lengths, [B, Q]."""
  lens = rng.integers(4, Q + 1, B)[:, None]
  at = np.arange(Q)
  ids = rng.integers(5, SIZES.vocab_size, (B, Q))
  ids = np.where(at == 0, SPECIALS.cls, ids)
  ids = np.where(at == lens - 1, SPECIALS.sep, ids)
  mask = (at < lens).astype(np.int32)
  ids = np.where(mask, ids, SPECIALS.pad).astype(np.int32)
  return Inputs(ids, mask, np.zeros_like(ids))


def pretrain_batch(seed=1) -> PretrainBatch:
  """Queries with one to M masks; half of them know their own block."""
  rng = np.random.default_rng(seed)
  query = queries(rng)
  ids, length = query.input_ids, query.attention_mask.sum(1)
  positions = np.zeros((B, M), np.int32)
  targets, mask = np.zeros_like(positions), np.zeros_like(positions)
  for b in range(B):
    n = min(rng.integers(1, M + 1), length[b] - 2)
    positions[b, :n] = rng.permutation(np.arange(1, length[b] - 1))[:n]
    targets[b, :n] = ids[b, positions[b, :n]]
    ids[b, positions[b, :n]] = SPECIALS.mask
    mask[b, :n] = 1
  own = np.where(np.arange(B) % 2, rng.integers(0, N, B), -1)
  return PretrainBatch(
    query=query,
    mlm_positions=positions,
    mlm_targets=targets,
    mlm_mask=mask,
    own_block=own.astype(np.int32),
    gold_block=np.full(B, -1, np.int32),
    example_ids=np.arange(B),
  )


def qa_batch(tokens: BlockTokens, seed=2) -> QaBatch:
  """Questions; most answers stand in some bodies, of one or two wordpieces."""
  rng = np.random.default_rng(seed)
  num_answers, width = 2, 4
  answer_ids = np.full((B, num_answers, width), -1, np.int32)
  lens = np.zeros((B, num_answers), np.int32)
  for b, a in np.ndindex(lens.shape):
    block = rng.integers(N)
    body = tokens.token_ids[block, : tokens.lens[block]]
    body = body[tokens.title_lens[block] :]
    lens[b, a] = n = min(rng.integers(0, 3), len(body))
    answer_ids[b, a, :n] = body[:n]
  return QaBatch(queries(rng), answer_ids, lens, np.arange(B))


@functools.cache
def params(
  embedder: RealmConfig = EMBEDDER, sizes: RealmConfig = SIZES
) -> dict:
  """Params of embedder, encoder and reader, no two numbers the same."""
  joint = np.zeros((1, L), np.int32)
  masks = np.zeros((1, M), np.int32)
  inputs = bert.make_inputs(joint)
  encoder, reader = RealmKnowledgeAugEncoder(sizes), RealmReader(sizes)
  shapes = {
    "embedder": _shapes(RealmEmbedder(embedder), joint),
    "encoder": _shapes(encoder, inputs, masks, method="mlm_logits"),
    "reader": _shapes(reader, inputs, joint, joint, method="span_logits"),
  }
  rng = np.random.default_rng(3)

  def draw(path, leaf):
    values = 0.4 * rng.standard_normal(leaf.shape) + ("scale" in str(path[-1]))
    return values.astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def params_of(*parts: str) -> dict:
  """Those of a run that trains these parts."""
  return {part: params()[part] for part in parts}


def _shapes(module, *args, method=None):
  init = functools.partial(module.init, method=method)
  return jax.eval_shape(init, jax.random.key(0), *args)["params"]
