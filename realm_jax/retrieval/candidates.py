"""From token ids to evidence, on the device: what a step does around the search.

Blocks, gathered by their ids (block_tokens.py), are embedded and joined with their
query. A candidate id of -1 is the null block: no title, no body.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from realm_jax.models.embedder import RealmEmbedder
from realm_jax.models.unpadded import Layout
from realm_jax.retrieval import mips, vectors
from realm_jax.types import Array, BlockTokens, Inputs

NULL = -1  # the candidate id of the null block


class Specials(NamedTuple):
  """Ids of the special wordpieces."""

  pad: int
  cls: int
  sep: int
  mask: int

  @classmethod
  def of(cls, tokenizer) -> "Specials":
    """Those of a data.tokenizer.Tokenizer."""
    return cls(
      tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id
    )


def embed(
  embedder: RealmEmbedder,
  params,
  inputs: Inputs,
  dropout_rng: Array | None,
  layout: Layout | None = None,
  gapless: bool = False,
) -> Array:
  """Embeds sequences [..., T] -> [..., P]; dropout where a key is given.

  A layout is of their rows [R, T]; gapless as in Bert.
  """
  lead = inputs.input_ids.shape[:-1]
  rows = flatten(inputs)
  emb = embedder.apply(
    {"params": params},
    rows.input_ids,
    attention_mask=rows.attention_mask,
    token_type_ids=rows.token_type_ids,
    position_ids=rows.position_ids,
    layout=layout,
    gapless=gapless,
    deterministic=dropout_rng is None,
    rngs=None if dropout_rng is None else {"dropout": dropout_rng},
  ).projected_score
  return emb.reshape(*lead, -1)


def flatten(inputs: Inputs) -> Inputs:
  """Sequences [..., T] as rows [R, T]."""
  return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), inputs)


def visible(
  query: Inputs, embedder: RealmEmbedder, specials: Specials
) -> Inputs:
  """The queries [B, Q] as the retriever sees them.

  With `config.query_mask_token=False` it doesn't see [MASK]: there is none in
  a block or a question, and a small model spends most of its pre-training on
  learning to look past it.
  """
  if embedder.config.query_mask_token:
    return query
  seen = query.attention_mask * (query.input_ids != specials.mask)
  return query.replace(attention_mask=seen)


def block_inputs(blocks: BlockTokens, specials: Specials) -> Inputs:
  """`[CLS] title [SEP] body [SEP]`, segments 0 and 1: [..., C-3] -> [..., C]."""
  at = jnp.arange(blocks.token_ids.shape[-1] + 3)  # [C]
  title, length = blocks.title_lens[..., None], blocks.lens[..., None]
  in_title = at <= title  # with [CLS]
  source = jnp.clip(jnp.where(in_title, at - 1, at - 2), 0, at.size - 4)
  ids = _take(blocks.token_ids, source)
  ids = jnp.where(at == 0, specials.cls, ids)
  ids = jnp.where((at == title + 1) | (at == length + 2), specials.sep, ids)
  mask = at <= length + 2
  return Inputs(
    input_ids=jnp.where(mask, ids, specials.pad),
    attention_mask=mask.astype(jnp.int32),
    token_type_ids=(mask & (at > title + 1)).astype(jnp.int32),
  )


def body(blocks: BlockTokens, length: int) -> tuple[Array, Array]:
  """The bodies' wordpieces, [..., C-3] -> ids and mask [..., length]."""
  at = jnp.arange(length)
  title = blocks.title_lens[..., None]
  source = jnp.clip(title + at, 0, blocks.token_ids.shape[-1] - 1)
  mask = at < blocks.lens[..., None] - title
  return _take(blocks.token_ids, source), mask


def join(
  query: Inputs,
  blocks: BlockTokens,
  joint_len: int,
  specials: Specials,
  contiguous: bool = True,
) -> tuple[Inputs, Array]:
  """Joins each query with each of its candidates: `[CLS] query [SEP] body [SEP]`.

  The query has priority: the body is cut to what it leaves of joint_len. The
  title isn't shown to the reader (original: only the embedder sees it).

  Args:
    query: [B, Q] with specials, Q < joint_len.
    blocks: [B, K, C-3].
    joint_len: L.
    specials: ids of the special wordpieces.
    contiguous: whether position ids run on from the query's last token. If
      not, a body begins at position Q beside every query, which a small model
      finds far sooner.

  Returns:
    Inputs [B, K, L], and the mask of body wordpieces [B, K, L].
  """
  at = jnp.arange(joint_len)
  query_end = query.attention_mask.sum(-1)[:, None, None]  # [B, 1, 1]
  title = blocks.title_lens[..., None]  # [B, K, 1]
  num_body = blocks.lens[..., None] - title
  joint_end = jnp.minimum(query_end + num_body, joint_len - 1)  # the last [SEP]
  in_query, in_body = at < query_end, (at >= query_end) & (at < joint_end)
  last = blocks.token_ids.shape[-1] - 1
  body_ids = _take(blocks.token_ids, jnp.clip(title + at - query_end, 0, last))
  pad = ((0, 0), (0, joint_len - query.input_ids.shape[1]))
  query_ids = jnp.pad(query.input_ids, pad)[:, None]  # [B, 1, L]
  ids = jnp.where(in_body, body_ids, specials.pad)
  ids = jnp.where(at == joint_end, specials.sep, ids)
  ids = jnp.where(in_query, query_ids, ids)
  skipped = 0 if contiguous else query.input_ids.shape[1] - query_end
  position_ids = jnp.where(in_query, at, at + skipped)
  joint = Inputs(
    input_ids=ids,
    attention_mask=(at <= joint_end).astype(jnp.int32),
    token_type_ids=((at >= query_end) & (at <= joint_end)).astype(jnp.int32),
    position_ids=jnp.broadcast_to(position_ids, ids.shape),
  )
  return joint, in_body


def body_columns(query: Inputs, joint_len: int) -> Array:
  """The columns of a joint sequence that a body can have, [B, L-3].

  They begin where the query ends; past the sequence, its last column is
  repeated, which is never a body's.
  """
  columns = query.attention_mask.sum(-1)[:, None] + jnp.arange(joint_len - 3)
  return jnp.minimum(columns, joint_len - 1)


def drop_trivial(ids: Array, own_block: Array, num_candidates: int) -> Array:
  """Null block first, then the best others without the query's own block.

  Args:
    ids: [B, K] found blocks, best first, K = num_candidates.
    own_block: [B] the trivial candidate, -1 where there is none.
    num_candidates: K.

  Returns:
    [B, K]: slot 0 is the null block, then K - 1 blocks in order.
  """
  own = (ids == own_block[:, None]) & (own_block[:, None] >= 0)
  order = jnp.argsort(own, axis=1, stable=True)  # the own block goes last
  kept = jnp.take_along_axis(ids, order, axis=1)[:, : num_candidates - 1]
  return jnp.pad(kept, ((0, 0), (1, 0)), constant_values=NULL)


def search(block_emb, query_emb, k, num_blocks, mesh=None):
  """`mips.top_k`, jitted, for use outside a step.

  Raises:
    InputError: sizes that don't fit, queries that are not finite.
  """
  vectors.check_finite("queries", query_emb)
  return _search(block_emb, query_emb, k, num_blocks, mesh)


@functools.partial(jax.jit, static_argnames=("k", "num_blocks", "mesh"))
def _search(block_emb, query_emb, k, num_blocks, mesh):
  return mips.top_k(block_emb, query_emb, k, mesh=mesh, num_blocks=num_blocks)


def find_answers(
  body_ids: Array, body_mask: Array, answer_ids: Array, answer_lens: Array
) -> tuple[Array, Array]:
  """Where an answer's wordpieces stand in a body.

  Args:
    body_ids: [B, K, T] wordpieces; body_mask: [B, K, T].
    answer_ids: [B, A, W]; answer_lens: [B, A], 0 where there is no answer.

  Returns:
    found [B, K, A, T] bool: answer a begins at t; and the last index of such
    an occurrence [B, 1, A, T] (inclusive).
  """
  t, w = body_ids.shape[-1], answer_ids.shape[-1]
  ids = jnp.where(body_mask, body_ids, NULL - 1)  # equals no wordpiece
  ids = jnp.pad(ids, ((0, 0), (0, 0), (0, w)), constant_values=NULL - 1)
  found = (answer_lens > 0)[:, None, :, None]
  for i in range(w):
    same = ids[:, :, None, i : i + t] == answer_ids[:, None, :, i, None]
    found = found & (same | (i >= answer_lens)[:, None, :, None])
  ends = jnp.arange(t) + answer_lens[:, None, :, None] - 1
  return found, ends


def _take(token_ids: Array, source: Array) -> Array:
  """token_ids [..., T] at source [..., T'] along the last axis."""
  source = jnp.broadcast_to(source, (*token_ids.shape[:-1], source.shape[-1]))
  return jnp.take_along_axis(token_ids, source, axis=-1).astype(jnp.int32)
