"""Prepared data as a run sees it: opened, checked, on its devices."""

import dataclasses
import pathlib

from jax.sharding import Mesh
from ml_collections import ConfigDict

from realm_jax import sharding
from realm_jax.config import InputError
from realm_jax.data.blocks import BlockStore
from realm_jax.data.tokenizer import Tokenizer, load_tokenizer
from realm_jax.retrieval import block_tokens, refresh
from realm_jax.retrieval.block_tokens import HostTokens, Tokens
from realm_jax.retrieval.candidates import Specials


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Prepared data, opened, and the mesh it is used on.

  Attributes:
    data_dir: what prepare_data wrote.
    tokenizer: of queries and blocks.
    store: the blocks.
    specials: ids of the special wordpieces.
    mesh: all devices of the run.
  """

  data_dir: pathlib.Path
  tokenizer: Tokenizer
  store: BlockStore
  specials: Specials
  mesh: Mesh

  @property
  def meta(self) -> dict[str, str]:
    """What binds checkpoints and index versions to this data."""
    return {
      "tokenizer_hash": self.tokenizer.hash,
      "corpus_hash": self.store.meta["corpus_hash"],
    }

  def tokens(self, config: ConfigDict) -> Tokens:
    """The blocks' tokens, rows over the mesh, padded to whole slices.

    Raises:
      InputError: they are to be on the host, which no program can ask.
    """
    slice_size, block_len = config.refresh.slice_size, config.block_len
    rows = refresh.padded_rows(len(self.store), self.mesh.size, slice_size)
    if config.block_tokens == "host":
      block_tokens.check_host()
      return HostTokens.of(self.store, block_len, rows)

    def read(first: int, last: int):
      return self.store.device_tokens(block_len, last, first)

    return sharding.make_rows(read, rows, self.mesh)


def data_dir(config: ConfigDict, workdir: str | pathlib.Path) -> pathlib.Path:
  """config.data.dir, else WORKDIR/data, else the data beside WORKDIR."""
  if config.data.dir:
    return pathlib.Path(config.data.dir)
  inside = pathlib.Path(workdir) / "data"
  beside = pathlib.Path(workdir).parent / "data"
  if (beside / "manifest.json").exists() and not inside.exists():
    return beside
  return inside


def open_corpus(config: ConfigDict, workdir: str | pathlib.Path) -> Corpus:
  """Opens the prepared data of a run.

  Raises:
    InputError: there is none, or its parts don't belong together.
  """
  path = data_dir(config, workdir)
  if not (path / "manifest.json").exists():
    raise InputError(
      f"{path}: no prepared data: run experiments.prepare_data first, or name"
      " its directory with --config.data.dir=DIR"
    )
  tokenizer = load_tokenizer(path / "tokenizer")
  store = BlockStore(path / "blocks")
  if store.meta["tokenizer_hash"] != tokenizer.hash:
    raise InputError(
      f"{path}/blocks was made with tokenizer"
      f" {store.meta['tokenizer_hash'][:12]}, but {path}/tokenizer is"
      f" {tokenizer.hash[:12]}: run experiments.prepare_data again"
    )
  mesh = sharding.make_mesh(**config.mesh)
  return Corpus(path, tokenizer, store, Specials.of(tokenizer), mesh)


def check_same_data(
  workdir: str | pathlib.Path, meta: dict, corpus: Corpus
) -> None:
  """Refuses a checkpoint that was trained on other data than this.

  Raises:
    InputError: names what differs.
  """
  for key, value in corpus.meta.items():
    if meta[key] != value:
      raise InputError(
        f"{workdir}/checkpoints: {key} is {meta[key][:12]}, but"
        f" {corpus.data_dir} has {value[:12]}: use the data this run was"
        " trained on"
      )
