"""Between runs of ours and the reference's directories.

What `write_run` makes of a model is a place to start a run from
(`--config.init.embedder=DIR`): the reference's config.json and tokenizer beside
`checkpoints/0`, which holds the model's parts, sealed as every checkpoint. A
run that was trained becomes one of the reference's models.
"""

import dataclasses
import os
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from realm_jax import files
from realm_jax.config import FILE, InputError, RealmConfig
from realm_jax.data.realm_tokenizer_fast import RealmTokenizerFast
from realm_jax.data.tokenizer import load_vocab
from realm_jax.models.embedder import RealmEmbedder, RealmScorer
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.open_qa import RealmForOpenQA
from realm_jax.models.reader import RealmReader
from realm_jax.pretrained import load, save
from realm_jax.pretrained.load import KINDS, Pretrained
from realm_jax.retrieval.retriever import RealmRetriever, StoreRecords
from realm_jax.serve import run
from realm_jax.train import checkpoint

_VOCAB = "vocab.txt"
_OF_PARTS = ("scorer", "openqa")  # their params are those of embedder, reader
_OF_READERS = (  # what a reader is told beside its sizes
  "max_span_width", "reader_beam_size", "searcher_beam_size", "reader_seq_len"
)  # fmt: skip


def open_model(
  path: str | os.PathLike, kind: str | None = None, partial: bool = False
) -> Pretrained:
  """Reads a model from a run, from what `write_run` wrote, or as
  load_pretrained does.

  Args:
    path: the directory.
    kind: which model; None: the one that the directory names or has.
    partial: as load_pretrained's.

  Raises:
    InputError: no model here, or several.
  """
  path = pathlib.Path(path)
  runs = [*path.glob("checkpoints"), *path.glob("*/checkpoints")]
  config = files.read_json(path / FILE) if (path / FILE).exists() else {}
  if runs and "model_type" in config:
    return _open_written(path)
  if runs:
    return _open_trained(path, kind)
  return load.load_pretrained(path, kind=kind, partial=partial)


def write_run(path: str | os.PathLike, pretrained: Pretrained) -> None:
  """Publishes a model as a run of no steps; see the module.

  Raises:
    InputError: as save_pretrained.
  """
  path = pathlib.Path(path)
  save.check_place(path)
  kind = next(k for k, c in KINDS.items() if type(pretrained.module) is c)
  params = pretrained.params
  parts = dict(params) if kind in _OF_PARTS else {kind: params}
  if pretrained.block_emb is not None:
    parts["block_emb"] = pretrained.block_emb
  if pretrained.unread:
    parts["unread"] = traverse_util.unflatten_dict(pretrained.unread, sep=".")
  with files.atomic_publish(path) as tmp:
    save.write_all_but_weights(tmp, pretrained)
    meta = {}
    if (tmp / _VOCAB).exists():
      lower_case = pretrained.tokenizer.do_lower_case
      meta["tokenizer_hash"] = load_vocab(tmp / _VOCAB, lower_case).hash
    checkpoints = checkpoint.Checkpoints(tmp)
    checkpoints.save(0, {"state": {"params": parts}}, meta=meta)
    checkpoints.close()


def _open_written(path: pathlib.Path) -> Pretrained:
  parts, _, _ = checkpoint.restore_params(path)
  config = RealmConfig.from_pretrained(path)
  kind = load.kind_of(config, None, path)
  block_emb = parts.pop("block_emb", None)
  unread = traverse_util.flatten_dict(parts.pop("unread", {}), sep=".")
  module = KINDS[kind](config)
  if "query_embedder" in parts:
    module = RealmScorer(config, RealmEmbedder(config))
  return Pretrained(
    config,
    module,
    jax.tree.map(jnp.asarray, parts if kind in _OF_PARTS else parts[kind]),
    *load.read_texts(path),
    block_emb=None if block_emb is None else jnp.asarray(block_emb),
    unread=unread,
  )


def _open_trained(path: pathlib.Path, kind: str | None) -> Pretrained:
  """A part of a run, or its embedder and reader together."""
  opened = run.open_run(path)
  modules = _modules(opened)
  if kind is None and (len(modules) == 1 or "openqa" in modules):
    kind = [*modules][-1]
  if kind not in modules:
    raise InputError(
      f"{path}: kind={kind}: this run has {', '.join(modules)}: name one"
    )
  if kind == "openqa" and not opened.config["contiguous"]:
    raise InputError(
      f"{path}: config contiguous=False: the reference's positions run on from"
      " the question to the block: name a part, as in kind=reader"
    )
  # The reference has no score_scale: its root goes into either side.
  root = opened.retrieval.score_scale**0.5
  params = dict(opened.params)
  norm = jax.tree.map(lambda x: x * root, params["embedder"]["norm"])
  params["embedder"] = {**params["embedder"], "norm": norm}
  module, tokenizer = modules[kind], _tokenizer(opened)
  origin = _origin(opened)
  if kind != "openqa":
    return Pretrained(
      module.config, module, params[kind], tokenizer, origin=origin
    )
  retriever = None
  if tokenizer is not None:
    retriever = RealmRetriever(StoreRecords(opened.store), tokenizer)
  return Pretrained(
    module.config,
    module,
    {name: params[name] for name in ("embedder", "reader")},
    tokenizer,
    retriever,
    root * opened.block_emb[: len(opened.store)],
    origin=origin,
  )


def _origin(opened: run.Run) -> dict[str, dict]:
  """What a run tells of its training and its data, for the card."""
  manifest = files.read_json(opened.data_dir / "manifest.json")
  config, meta = opened.config, opened.store.meta
  training = {"run": opened.workdir.name, "steps": opened.step}
  training |= {"seed": config["seed"]} | {
    name: config["train"][name]
    for name in ("num_steps", "batch_size", "learning_rate")
  }
  training |= {
    f"{part} began with": pathlib.Path(path).name
    for part, path in config["init"].items()
    if path
  }
  data = {"blocks": len(opened.store), "corpus hash": meta["corpus_hash"]}
  data["tokenizer hash"] = opened.tokenizer.hash
  data |= {
    f"sha256 of {pathlib.Path(name).name}": digest
    for name, digest in manifest.get("sources", {}).items()
  }
  if opened.index_version is not None:
    data["index version"] = opened.index_version
  return {"training": training, "data": data}


def _modules(opened: run.Run) -> dict[str, nn.Module]:
  """The models of a run, by kind; how they were initialised is past."""
  embedder = _trained(opened.retrieval.embedder.config)
  modules: dict[str, nn.Module] = {"embedder": RealmEmbedder(embedder)}
  if opened.realm is not None:
    k = opened.realm.num_candidates
    config = _trained(opened.realm.encoder.config, num_candidates=k)
    modules["encoder"] = RealmKnowledgeAugEncoder(config)
  if opened.open_qa is not None:
    length = opened.open_qa.joint_len
    config = _trained(opened.open_qa.reader.config, reader_seq_len=length)
    modules["reader"] = RealmReader(config)
    beams = {name: getattr(config, name) for name in _OF_READERS}
    same = dataclasses.replace(embedder, **beams) == config
    modules["openqa"] = (
      RealmForOpenQA(config) if same else RealmForOpenQA(embedder, config)
    )
  return modules


def _trained(config: RealmConfig, **more) -> RealmConfig:
  return dataclasses.replace(config, init="normal", **more)


def _tokenizer(opened: run.Run) -> RealmTokenizerFast | None:
  """The run's vocabulary as the reference has it; it has no SentencePiece."""
  path = opened.data_dir / "tokenizer"
  if not (path / _VOCAB).exists():
    return None
  lower_case = files.read_json(path / "meta.json")["lower_case"]
  return RealmTokenizerFast(path / _VOCAB, do_lower_case=lower_case)
