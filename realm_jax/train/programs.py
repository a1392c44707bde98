"""The program of any config, for its plan; data need not be prepared."""

import math
import pathlib

import jax
from ml_collections import ConfigDict

from realm_jax import sharding
from realm_jax.config import InputError
from realm_jax.plan.plan import Program
from realm_jax.train import finetune, ict, pretrain, shapes, share
from realm_jax.train.corpus import data_dir, open_corpus

# A field that one kind of run has alone -> what makes its program.
_KINDS = {
  "mask_rate": ict.program,
  "evidence": pretrain.program,
  "searcher_beam_size": finetune.program,
}


def program(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  num_blocks: int = 0,
  devices: int = 0,
) -> Program:
  """What one device of a run will run.

  Args:
    config: of ICT, encoder, pre-training or fine-tuning.
    workdir: whose prepared data says how many blocks and wordpieces there are.
    num_blocks: without prepared data.
    devices: of the mesh, whose data axis takes what is left; 0: what
      config.mesh says, or those that are here.

  Raises:
    InputError: a config of no run, sizes that don't go together, or neither
      prepared data nor num_blocks.
  """
  make = next((m for name, m in _KINDS.items() if name in config), None)
  if make is None:
    raise InputError(
      "--config: not the config of one run; give configs/ict.py, encoder.py,"
      " pretrain.py or finetune.py"
    )
  mesh = _mesh(config.mesh, devices)
  corpus = _corpus(config, workdir, num_blocks, mesh)
  shapes.check_devices(config, corpus)
  if "refresh" in config:
    config = share.settled(config, workdir, corpus, lambda c: make(c, corpus))
  return make(config, corpus)


def _mesh(section: ConfigDict, devices: int):
  """The config's mesh, of that many devices."""
  sizes = section.to_dict()
  if devices:
    sizes["data"] = -1
  elif min(sizes.values()) > 0:
    devices = math.prod(sizes.values())
  devices = devices or jax.device_count()
  return sharding.planned_mesh(sharding.mesh_sizes(devices, **sizes))


def _corpus(config, workdir, num_blocks, mesh) -> shapes.PlannedCorpus:
  size = config.data.tokenizer.vocab_size
  where = "--blocks"
  directory = data_dir(config, workdir)
  if not num_blocks and (directory / "manifest.json").exists():
    corpus = open_corpus(config, workdir)
    num_blocks, size = len(corpus.store), corpus.tokenizer.vocab_size
    where = str(directory)
  if not num_blocks:
    raise InputError(
      f"{directory}: no prepared data, so the number of blocks is not known:"
      " give it with --blocks, or a --workdir with data"
    )
  return shapes.PlannedCorpus(
    tokenizer=shapes.Vocabulary(size),
    store=range(num_blocks),
    mesh=mesh,
    data_dir=where,
  )
