"""A finished (or still growing) run, opened for reading on one device.

Params of the newest good checkpoint, tokenizer, an index version (the newest,
where none is named) and its blocks, checked against each other. Nothing is
written.
"""

import dataclasses
import pathlib
from typing import Any

import jax

from realm_jax import run_config
from realm_jax.config import InputError, RealmConfig
from realm_jax.data.blocks import BlockStore
from realm_jax.data.tokenizer import Tokenizer, load_tokenizer
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.reader import RealmReader
from realm_jax.retrieval import block_tokens, manifest
from realm_jax.retrieval.block_tokens import HostTokens, Tokens
from realm_jax.retrieval.candidates import Specials
from realm_jax.retrieval.open_qa import OpenQa
from realm_jax.retrieval.realm import Realm
from realm_jax.retrieval.refresh import BlockEmbedder, padded_rows
from realm_jax.retrieval.retrieve import Retrieval
from realm_jax.run_config import RunConfig
from realm_jax.serve import versions
from realm_jax.train import checkpoint

# The sub-runs of a demo folder, the most able first.
_SUB_RUNS = ("finetune", "pretrain", "ict")
_SLICE = 128  # blocks embedded at a time where the run has no index


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
  """A run and all that its models need; its repr is a line.

  Attributes:
    workdir: its directory.
    config: its config.json.
    data_dir: the prepared data it was trained on.
    step: training steps of the params.
    params: {"embedder", ["encoder"], ["reader"]}, on the device.
    tokenizer: of queries and blocks.
    store: the blocks of the index version.
    tokens: of all N blocks, on the device or, if the config says so, the host.
    block_emb: [N, P] the newest index version, or the one asked for, on the
      device.
    index_version: its number; None: the run has none, it was made just now.
    index_path: the version's directory, None likewise.
    retrieval: the search.
    realm: the pre-training model, None where the run has no encoder.
    open_qa: the reader's model, None where the run has no reader.
  """

  workdir: pathlib.Path
  config: RunConfig
  data_dir: pathlib.Path
  step: int
  params: dict[str, Any]
  tokenizer: Tokenizer
  store: BlockStore
  tokens: Tokens
  block_emb: jax.Array
  index_version: int | None
  index_path: pathlib.Path | None
  retrieval: Retrieval
  realm: Realm | None
  open_qa: OpenQa | None

  def __repr__(self) -> str:
    version = "none" if self.index_version is None else self.index_version
    return (
      f"Run({str(self.workdir)!r}, step {self.step}, {', '.join(self.params)},"
      f" index {version} of {len(self.store)} blocks)"
    )


def find_run(workdir: str | pathlib.Path) -> pathlib.Path:
  """The run that a workdir is, or its most able sub-run if it is a demo's.

  Raises:
    InputError: there is no trained run.
  """
  workdir = pathlib.Path(workdir)
  for path in (workdir, *(workdir / name for name in _SUB_RUNS)):
    if (path / "config.json").is_file() and (path / "checkpoints").is_dir():
      return path
  raise InputError(
    f"--workdir={workdir}: no trained run here, nor in {', '.join(_SUB_RUNS)}"
    " under it (wanted config.json and checkpoints/)"
  )


def open_run(workdir: str | pathlib.Path, index: str = "") -> Run:
  """Opens the run of a workdir; see `find_run`.

  Args:
    workdir: of a run, or a folder of runs.
    index: another version than the newest, with its blocks: its number, its
      directory, or the directory of a run.

  Raises:
    InputError: no run, no data, or parts that don't belong together.
  """
  workdir = find_run(workdir)
  config = run_config.read(workdir)
  params, meta, step = checkpoint.restore_params(workdir)
  data = _find_data(config, workdir)
  tokenizer = load_tokenizer(data / "tokenizer")
  store = BlockStore(data / "blocks")
  _check_same(workdir, data, meta, tokenizer, store)
  version = versions.find_version(workdir, index, _SUB_RUNS)
  if version is not None:
    versions.check_version(
      version,
      workdir,
      params=params["embedder"],
      step=step,
      tokenizer_hash=tokenizer.hash,
      block_len=config["block_len"],
    )
  store = versions.open_blocks(version, _stores(version, workdir, data, store))
  retrieval = Retrieval(
    RealmEmbedder(_sizes(config, "embedder", tokenizer, store)),
    Specials.of(tokenizer),
    num_blocks=len(store),
    score_scale=config["score_scale"],
  )
  params = jax.device_put(params)
  tokens = _tokens(config, store)
  return Run(
    workdir=workdir,
    config=config,
    data_dir=data,
    step=step,
    params=params,
    tokenizer=tokenizer,
    store=store,
    tokens=tokens,
    block_emb=_block_emb(version, retrieval, params, tokens, store),
    index_version=version and manifest.read(version)["version"],
    index_path=version,
    retrieval=retrieval,
    realm=_realm(config, params, retrieval, tokenizer, store),
    open_qa=_open_qa(config, params, retrieval, tokenizer, store),
  )


def _find_data(config: RunConfig, workdir: pathlib.Path) -> pathlib.Path:
  """Where the config says, else beside the run (a folder that was moved)."""
  named = pathlib.Path(config["data"]["dir"] or workdir / "data")
  for path in (named, workdir / "data", workdir.parent / "data"):
    if (path / "manifest.json").is_file():
      return path
  raise InputError(
    f"{workdir}/config.json: no prepared data in data.dir={named}: put it"
    f" there, or at {workdir}/data"
  )


def _check_same(workdir, data, meta, tokenizer, store):
  have = {
    "tokenizer_hash": tokenizer.hash,
    "corpus_hash": store.meta["corpus_hash"],
  }
  if store.meta["tokenizer_hash"] != tokenizer.hash:
    raise InputError(
      f"{data}/blocks was made with another tokenizer than {data}/tokenizer:"
      " run experiments.prepare_data again"
    )
  for key, value in have.items():
    if meta.get(key) != value:
      raise InputError(
        f"{workdir}/checkpoints: {key} is {meta.get(key)!r}, but {data} has"
        f" {value!r}: use the data this run was trained on"
      )


def _sizes(config, part, tokenizer, store, **more) -> RealmConfig:
  return RealmConfig.from_dict(
    {
      **config[part],
      "vocab_size": tokenizer.vocab_size,
      "pad_token_id": tokenizer.pad_id,
      "num_block_records": len(store),
      **more,
    }
  )


def _stores(version, workdir, data, store) -> dict[str, BlockStore]:
  """The run's blocks, and those of the run that an index version lies in."""
  stores = {str(data / "blocks"): store}
  if version is not None and (owner := version.parent.parent) != workdir:
    if (owner / "config.json").is_file():
      path = _find_data(run_config.read(owner), owner) / "blocks"
      stores[str(path)] = BlockStore(path)
  return stores


def _tokens(config, store) -> Tokens:
  rows, block_len = padded_rows(len(store), 1, _SLICE), config["block_len"]
  if config["block_tokens"] == "host":
    block_tokens.check_host()
    return HostTokens.of(store, block_len, rows)
  return jax.device_put(store.device_tokens(block_len, rows))


def _block_emb(version, retrieval, params, tokens, store):
  """The index version's rows; blocks embedded now where there is none."""
  if version is None:
    embedder = BlockEmbedder(retrieval, _SLICE)
    return embedder.embed_all(params["embedder"], tokens)
  size = retrieval.embedder.config.retriever_proj_size
  return jax.device_put(versions.read_rows(version, store, size))


def _realm(config, params, retrieval, tokenizer, store):
  if "encoder" not in params:
    return None
  return Realm(
    retrieval,
    RealmKnowledgeAugEncoder(_sizes(config, "encoder", tokenizer, store)),
    num_candidates=config["num_candidates"],
    joint_len=config["joint_len"],
    marginalise=config["marginalise"],
    contiguous=config["contiguous"],
  )


def _open_qa(config, params, retrieval, tokenizer, store):
  if "reader" not in params:
    return None
  names = ("max_span_width", "reader_beam_size", "searcher_beam_size")
  beams = {name: config[name] for name in names}
  reader = RealmReader(_sizes(config, "encoder", tokenizer, store, **beams))
  return OpenQa(
    retrieval,
    reader,
    joint_len=config["joint_len"],
    embed_found=config["embed_found"],
    contiguous=config["contiguous"],
  )
