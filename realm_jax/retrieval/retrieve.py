"""The latent retriever: embed with current params, search the index.

The index may be stale: it only selects. Every score that a loss or an answer
rests on is of embeddings made with current params (paper, section 3.3).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from realm_jax import sharding
from realm_jax.models import unpadded
from realm_jax.models.embedder import RealmEmbedder, relevance_score
from realm_jax.retrieval import block_tokens, candidates, mips
from realm_jax.retrieval.block_tokens import Tokens
from realm_jax.retrieval.candidates import Specials
from realm_jax.types import Array, BlockTokens, Inputs


class Fill(NamedTuple):
  """Shares of a batch's padded places that are computed; 1 computes them all.

  A batch that holds more wordpieces has its longest sequences cut
  (models/unpadded.py).

  Attributes:
    query: of the queries [B, Q].
    block: of the candidates [B, K, C].
    joint: of the joint sequences [B, K, L].
    masks: of the masked wordpieces [B, M].
  """

  query: float = 1.0
  block: float = 1.0
  joint: float = 1.0
  masks: float = 1.0


ALL = Fill()
SEARCH = "search"


@dataclasses.dataclass(frozen=True)
class Retrieval:
  """What every search of a run shares.

  Attributes:
    embedder: of queries and blocks.
    specials: ids of the special wordpieces.
    num_blocks: real rows of the index; the rest is padding.
    score_scale: what f(x, z) is multiplied with (1 in the original; a small
      model that starts from ICT wants 1/sqrt(P)).
    mesh: where the index lies; None for one device.
    frozen: whether no gradient reaches the embedder; spares its backward pass.
    fill: how much of a batch is computed.
  """

  embedder: RealmEmbedder
  specials: Specials
  num_blocks: int
  score_scale: float = 1.0
  mesh: Mesh | None = None
  frozen: bool = False
  fill: Fill = ALL

  def embed_query(self, params, query: Inputs, rng=None) -> Array:
    """[B, Q] -> [B, P]."""
    query = candidates.visible(query, self.embedder, self.specials)
    gapless = self.embedder.config.query_mask_token
    return self.embed(params, query, rng, self.fill.query, gapless)

  def embed_blocks(
    self, params, blocks: BlockTokens, rng=None, fill: float = 1.0
  ) -> Array:
    """[..., C-3] -> [..., P]."""
    inputs = candidates.block_inputs(blocks, self.specials)
    return self.embed(params, inputs, rng, fill)

  def embed(
    self,
    params,
    inputs: Inputs,
    rng=None,
    fill: float = 1.0,
    gapless: bool = True,
  ) -> Array:
    """[..., T] -> [..., P]; gapless as in Bert, which blocks are."""
    params = params["embedder"]
    if self.frozen:
      params = jax.lax.stop_gradient(params)
    layout = self.lay_out(inputs.attention_mask, fill)
    return candidates.embed(self.embedder, params, inputs, rng, layout, gapless)

  def lay_out(self, mask: Array, fill: float) -> unpadded.Layout | None:
    """Of the rows of [..., T]; None where all is computed."""
    groups = 1 if self.mesh is None else sharding.batch_ways(self.mesh)
    return unpadded.lay_out(mask.reshape(-1, mask.shape[-1]), fill, groups)

  def room(self, *masks_and_fills: tuple[Array, float]) -> dict[str, Array]:
    """How well some [..., T] tokens fit the places that are computed.

    Returns:
      "cut_tokens": () share of the tokens that had no room, "padding": () share
      of the places that held no token, and "tokens": () places that held one.
    """
    tokens, kept, places = 0, 0, 0
    for mask, fill in masks_and_fills:
      layout = self.lay_out(mask, fill)
      tokens += mask.sum()
      kept += (mask if layout is None else layout.mask).sum()
      places += mask.size if layout is None else layout.source.size
    return {
      "cut_tokens": 1 - kept / tokens,
      "padding": 1 - kept / places,
      "tokens": kept,
    }

  def gather_blocks(self, tokens: Tokens, ids: Array) -> BlockTokens:
    """The tokens of the blocks `ids` [B, ...], each query's where it is."""
    return block_tokens.gather_blocks(tokens, ids, self.mesh)

  def embed_candidates(self, params, blocks: BlockTokens, rng=None) -> Array:
    """Embeds candidates [B, K, C-3] -> [B, K, P].

    Slot 0 is the null block of every query: it is embedded once.
    """
    rngs = split_keys(rng, 2)
    null = jax.tree.map(lambda x: x[:1, :1], blocks)
    null_emb = self.embed_blocks(params, null, rngs[0])  # [1, 1, P]
    b, k = blocks.lens.shape
    null_emb = jnp.broadcast_to(null_emb, (b, 1, null_emb.shape[-1]))
    if k == 1:
      return null_emb
    others = jax.tree.map(lambda x: x[:, 1:], blocks)
    others_emb = self.embed_blocks(params, others, rngs[1], self.fill.block)
    return jnp.concatenate([null_emb, others_emb], axis=1)

  def search(self, block_emb: Array, query_emb: Array, k: int):
    """Scores and ids [B, k] of the best blocks; no gradient passes.

    A profile shows its operations under SEARCH.
    """
    with jax.named_scope(SEARCH):
      scores, ids = mips.top_k(
        block_emb,
        jax.lax.stop_gradient(query_emb),
        k,
        mesh=self.mesh,
        num_blocks=self.num_blocks,
      )
    return scores * self.score_scale, ids

  def relevance_score(self, query_emb: Array, candidate_emb: Array) -> Array:
    """Scaled f(x, z): [B, P], [B, K, P] -> [B, K]."""
    return self.score_scale * relevance_score(query_emb, candidate_emb)


def split_keys(rng: Array | None, n: int) -> list[Array | None]:
  """n keys, or n times None."""
  return [None] * n if rng is None else list(jax.random.split(rng, n))
