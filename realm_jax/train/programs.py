"""The program of any config, for its plan; data need not be prepared."""

import pathlib
import types

import jax
from ml_collections import ConfigDict

from realm_jax.config import InputError
from realm_jax.plan.plan import Program
from realm_jax.train import finetune, ict, pretrain, shapes
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
    devices: of the mesh; 0: what config.mesh.data says, or those that are here.

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
  if not devices:
    devices = config.mesh.data if config.mesh.data > 0 else jax.device_count()
  corpus = _corpus(config, workdir, num_blocks, devices)
  shapes.check_devices(config, corpus)
  return make(config, corpus)


def _corpus(config, workdir, num_blocks, devices) -> shapes.PlannedCorpus:
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
    mesh=types.SimpleNamespace(size=devices),
    data_dir=where,
  )
