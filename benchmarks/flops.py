"""FLOPs of the pre-training step, counted from its sizes.

Only matrix products are counted, a multiply-add as two, over padded lengths: it
is what the machine is given to do. Backward is twice forward. Letters as in
realm_jax/types.py.
"""

from ml_collections import ConfigDict

from realm_jax.config import RealmConfig


def bert(sizes: RealmConfig, rows: int, length: int, read: int) -> int:
  """Forward of the layers over [rows, length]; `read` positions of the last."""
  whole = (sizes.num_hidden_layers - 1) * _layer(sizes, length, length)
  return rows * (whole + _layer(sizes, length, read))


def _layer(sizes: RealmConfig, length: int, read: int) -> int:
  """One layer over one row: queries at `read` positions, keys at all."""
  d = sizes.hidden_size
  products = 2 * length * d * 2 * d + 2 * read * d * d  # keys, values; queries
  attention = 2 * 2 * read * length * d  # weights; mix
  hidden = 2 * 2 * read * d * sizes.intermediate_size
  return products + attention + 2 * read * d * d + hidden


def embedder(sizes: RealmConfig, rows: int, length: int) -> int:
  """Forward of RealmEmbedder over [rows, length]."""
  d = sizes.hidden_size
  project = 2 * rows * d * sizes.retriever_proj_size
  if sizes.pooling == "mean":
    return bert(sizes, rows, length, length) + project
  return bert(sizes, rows, length, 1) + 2 * rows * d * d + project


def mlm_head(sizes: RealmConfig, rows: int, positions: int) -> int:
  """Forward of MlmHead at `positions` of each row."""
  d = sizes.hidden_size
  return rows * positions * 2 * d * (d + sizes.vocab_size)


def pretrain_step(
  config: ConfigDict,
  embedder_sizes: RealmConfig,
  encoder_sizes: RealmConfig,
  num_rows: int,
  slices: int,
) -> dict[str, int]:
  """FLOPs of each part of a step.

  Args:
    config: configs/pretrain.py.
    embedder_sizes: with the tokenizer's vocabulary.
    encoder_sizes: likewise.
    num_rows: of the index.
    slices: of the index that a step embeds.

  Returns:
    Part -> FLOPs, forward and backward where there is one, in the order of the
    step; "everywhere" are those of the two encoder parts, were the logits
    wanted at each position.
  """
  b, k, m = config.train.batch_size, config.num_candidates, config.max_masks
  length = config.joint_len
  rows = b * k
  return {
    "embed queries": 3 * embedder(embedder_sizes, b, config.query_len),
    "search": 2 * b * num_rows * embedder_sizes.retriever_proj_size,
    "embed candidates": 3
    * embedder(embedder_sizes, b * (k - 1) + 1, config.block_len),  # one null
    "encoder layers": 3 * bert(encoder_sizes, rows, length, m),
    "MLM head": 3 * mlm_head(encoder_sizes, rows, m),
    "embed index slice": slices
    * embedder(embedder_sizes, config.refresh.slice_size, config.block_len),
    "everywhere": 3
    * (
      bert(encoder_sizes, rows, length, length)
      + mlm_head(encoder_sizes, rows, length)
    ),
  }
