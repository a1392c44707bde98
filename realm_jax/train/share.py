"""Refresh in the steps by the share of a step that it may take.

`config.refresh.share` says what a step may do for the next index version, as a
share of all else that it does: of its FLOPs and of the bytes that its kernels
read and write (plan/cost.py), whichever is reached with fewer blocks; small
models wait for memory. Counts are no clock, so it comes to the same on every
machine of a kind. It is counted once, when a run begins: RUN/config.json keeps
`slice_size` and `every_steps`, which a run that goes on takes from there, whatever
its devices are by then.
"""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from realm_jax import backend, distributed, run_config
from realm_jax.config import InputError
from realm_jax.plan import cost, plan
from realm_jax.plan.cost import Cost
from realm_jax.plan.plan import Program
from realm_jax.retrieval import refresh
from realm_jax.train.metrics import note

_SETTLED = ("slice_size", "every_steps")


def settled(
  config: ConfigDict,
  workdir: str | os.PathLike,
  corpus: Any,
  make_program: Callable[[ConfigDict], Program],
) -> ConfigDict:
  """The config with the refresh.slice_size and every_steps of its share.

  Args:
    config: of a run; comes back as it is where refresh.share is 0.
    workdir: of the run, which may be there already.
    corpus: Corpus or shapes.PlannedCorpus.
    make_program: what one device runs with a config.

  Raises:
    InputError: a share that can't be.
  """
  section = config.refresh
  _check(section)
  held = distributed.by_process_0(lambda: _recorded(workdir))
  if not section.share and not (held and held["share"]):
    return config
  config = config.copy_and_resolve_references()
  if held:  # what else differs, the run's door tells (run_config.claim)
    config.refresh.update({name: held[name] for name in _SETTLED})
    _say(config.refresh, f"as {workdir} began")
    return config
  before = config.copy_and_resolve_references()
  before.refresh.mode = "never"
  program = make_program(before)
  if program.embed_all is None:
    return config
  count = functools.partial(cost.count, cpu=backend.name() == "cpu")
  step = count(program.step, *program.args)
  slice_ = count(program.embed_all.function, *program.embed_all.args)
  devices, num_blocks = program.devices, len(corpus.store)
  blocks = section.slice_size * section.share / max(shares(slice_, step))
  size = min(max(round(blocks), 1), -(-num_blocks // devices))
  rows = refresh.padded_rows(num_blocks, devices, size)
  config.refresh.slice_size = size
  config.refresh.every_steps = rows // (devices * size)
  flops, moved = (size * s / section.slice_size for s in shares(slice_, step))
  _say(
    config.refresh,
    f"{flops:.1%} on top of the {plan.show(step.flops, 'FLOP')} of a step, and"
    f" {moved:.1%} of the {plan.show(step.bytes, 'B')} that it moves",
  )
  return config


def shares(part: Cost, whole: Cost) -> tuple[float, float]:
  """What a part takes besides the whole, of its FLOPs and of its bytes."""
  return part.flops / whole.flops, part.bytes / whole.bytes


def _check(section: ConfigDict) -> None:
  if not 0 <= section.share <= 1:
    raise InputError(
      f"config refresh.share={section.share:g}: wanted 0 to 1, of a step; 0"
      " leaves it to refresh.every_steps"
    )
  if section.share and section.mode != "interleaved":
    raise InputError(
      f"config refresh.share={section.share:g}: with refresh.mode="
      f"{section.mode} no step embeds: give refresh.mode=interleaved, or"
      " refresh.share=0"
    )


def _recorded(workdir: str | os.PathLike) -> dict[str, Any] | None:
  """What a run that is there began with."""
  if not (pathlib.Path(workdir) / "config.json").exists():
    return None
  held = run_config.read(workdir).get("refresh", {})
  return {name: held[name] for name in ("share", *_SETTLED)} if held else None


def _say(section: ConfigDict, more: str) -> None:
  note(
    f"refresh.share={section.share:g}: a step embeds {section.slice_size} blocks"
    f" a device, a new version every {section.every_steps} steps; {more}"
  )
