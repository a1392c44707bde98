"""What is refused before a run writes anything: figures that don't fit together."""

from collections.abc import Mapping, Sequence

from jax.sharding import Mesh
from ml_collections import ConfigDict

from realm_jax import sharding
from realm_jax.config import InputError
from realm_jax.models import attention
from realm_jax.train.corpus import Corpus
from realm_jax.train.run import model_config


def check_choices(
  config: ConfigDict, choices: Mapping[str, Sequence[str]]
) -> None:
  """Refuses a field that is none of its choices.

  Raises:
    InputError: names the field, its value and the choices.
  """
  for name, known in choices.items():
    if config[name] not in known:
      raise InputError(
        f"config {name}={config[name]!r}: wanted {' or '.join(known)}"
      )


def check_lengths(config: ConfigDict, corpus: Corpus) -> None:
  """Refuses sequences that are longer than the position tables, too many
  candidates, no room for tokens or place for them, attention that is not to be
  had here, and batches that the devices do not divide.

  Raises:
    InputError: names the field, its value and the mend.
  """
  check_choices(config, {"block_tokens": ("device", "host")})
  if config.query_len >= config.joint_len:
    raise InputError(
      f"config query_len={config.query_len} leaves no room for a body in"
      f" joint_len={config.joint_len}; make joint_len larger"
    )
  # a body that does not follow its query at once begins at position query_len
  joint = ("joint_len",) if config.contiguous else ("query_len", "joint_len")
  for names, section in (
    (("block_len",), "embedder"),
    (("query_len",), "embedder"),
    (joint, "encoder"),
  ):
    most = config[section].max_position_embeddings
    if sum(config[name] for name in names) > most:
      lengths = " + ".join(f"{name}={config[name]}" for name in names)
      raise InputError(
        f"config {lengths} is longer than the model's positions:"
        f" {section}.max_position_embeddings={most}; make one fit the other"
      )
  for name in ("num_candidates", "searcher_beam_size"):
    if name in config and config[name] > len(corpus.store):
      raise InputError(
        f"config {name}={config[name]}, but {corpus.data_dir}/blocks has"
        f" {len(corpus.store)} blocks: give --config.{name}="
        f"{len(corpus.store)} or less"
      )
  for name, share in config.fill.items():
    if not 0 < share <= 1:
      raise InputError(
        f"config fill.{name}={share}: wanted a share over 0 and at most 1; 1"
        " computes all padding"
      )
  for part in ("embedder", "encoder"):
    attention.check_training(model_config(config, part, corpus), f"{part}.")
  check_splits(config, corpus.mesh)


def check_splits(config: ConfigDict, mesh: Mesh) -> None:
  """Refuses a batch, or heads, that the mesh does not divide.

  Raises:
    InputError: names the field, its value and the mend.
  """
  ways = sharding.batch_ways(mesh)
  size = config.train.batch_size
  if size % ways:
    raise InputError(
      f"config train.batch_size={size} does not split over {ways} devices: take"
      " a multiple of them, or fewer devices with --config.mesh.data"
    )
  parts = config.microbatches if "microbatches" in config else 1
  if parts < 1 or size % (parts * ways):
    raise InputError(
      f"config microbatches={parts}: wanted 1 or more parts of"
      f" train.batch_size={size}, each a multiple of {ways} devices"
    )
  tensor = mesh.shape["tensor"]
  for part in ("embedder", "encoder"):
    if (heads := config[part].num_attention_heads) % tensor:
      raise InputError(
        f"config mesh.tensor={tensor} does not divide"
        f" {part}.num_attention_heads={heads}: take a divisor of it"
      )
