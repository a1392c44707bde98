"""The phases of an ablation suite: what its arms train, share and are measured by.

Of one seed there are warm starts, pre-trainings, and of each arm a fine-tuning;
DIR/seedN/ has a run of each.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator

from ml_collections import ConfigDict

from experiments import evaluators
from experiments.phases import Phase, Phases
from realm_jax.config import InputError
from realm_jax.train import finetune, ict, pretrain
from realm_jax.train.build_index import build_index

_ICT, _ENCODER = "ict", "encoder"  # the runs of the warm starts


@dataclasses.dataclass(frozen=True)
class Seed:
  """All runs of one seed.

  Attributes:
    config: configs/table2.py.
    workdir: of the suite.
    seed: of the runs.
  """

  config: ConfigDict
  workdir: pathlib.Path
  seed: int

  def work(self, names: list[str]) -> Iterator[tuple[list, list]]:
    """Pairs of phases: some to be done, and the arms that can follow them."""
    sources = {name: self.config.sources[name] for name in names}
    done = set()
    for trained in dict.fromkeys(("", *itertools.chain(*sources.values()))):
      done.add(trained)
      yield (
        self._pretraining(trained) if trained else self._warm_starts(),
        [
          self._arm(name)
          for name, of in sources.items()
          if trained in of and done.issuperset(of)
        ],
      )

  def measured(self, arm: str) -> pathlib.Path:
    """Where the figures of an arm are."""
    return self.workdir / "measured" / f"seed{self.seed}.{arm}.json"

  def metrics(self, pretraining: str) -> pathlib.Path:
    """Of a pre-training."""
    return self._path(f"pretrain_{pretraining}") / "metrics.jsonl"

  def _path(self, name: str) -> pathlib.Path:
    return self.workdir / f"seed{self.seed}" / name

  def _phase(self, name, work, *args) -> Phase:
    return Phase(f"seed{self.seed}.{name}", work, args)

  def _train(self, name, train, section, changes=None, **init):
    """A run and its index."""
    section = section.copy_and_resolve_references()
    section.data, section.seed = self.config.data, self.seed
    section.data.dir = str(self.workdir / "data")
    section.init.update({k: str(self._path(run)) for k, run in init.items()})
    section.update(changes or {})
    path = self._path(name)
    yield self._phase(name, train, section, path)
    if name != _ENCODER:
      yield self._phase(f"{name}_index", build_index, path)

  def _warm_starts(self) -> list[Phase]:
    config = self.config
    return [
      *self._train(_ICT, ict.train_ict, config.ict),
      *self._train(_ENCODER, pretrain.pretrain, config.encoder),
    ]

  def _pretraining(self, name: str) -> list[Phase]:
    return [
      *self._train(
        f"pretrain_{name}", pretrain.pretrain, self.config.pretrain,
        changes=self.config.pretrainings[name],
        embedder=_ICT, encoder=_ENCODER,
      )
    ]  # fmt: skip

  def _arm(self, name: str) -> list[Phase]:
    starts = [
      f"pretrain_{source}" if source else warm
      for source, warm in zip(
        self.config.sources[name], (_ICT, _ENCODER), strict=True
      )
    ]
    run = f"finetune_{name}"
    return [
      *self._train(
        run, finetune.finetune, self.config.finetune,
        embedder=starts[0], encoder=starts[1],
      ),
      self._phase(
        f"evaluate_{name}", evaluators.measure_arm,
        self._path(run), *map(self._path, starts), self.measured(name),
      ),
    ]  # fmt: skip


def names(config: ConfigDict) -> list[str]:
  """The arms that are asked for.

  Raises:
    InputError: there is no such arm, no seed, or one twice.
  """
  chosen = [name for name in config.arms.split(",") if name]
  for name in chosen or [""]:
    if name not in config.sources:
      raise InputError(
        f"--arms={config.arms}: there is no {name or 'arm'}: wanted some of"
        f" {','.join(config.sources)}"
      )
  if not config.seeds or len(set(config.seeds)) < len(config.seeds):
    seeds = ",".join(map(str, config.seeds))
    raise InputError(f"--seeds={seeds}: wanted some, each once, such as 0,1,2")
  return chosen


def pretrainings(config: ConfigDict, names: list[str]) -> list[str]:
  """What the arms are from, in their order."""
  sources = itertools.chain(*(config.sources[name] for name in names))
  return [name for name in dict.fromkeys(sources) if name]


def run(phases: Phases, work: Iterator[tuple[list, list]]) -> None:
  """Does the first of each pair here, and beside it up to two of those that
  have become possible: a fine-tuning takes less than a pre-training."""
  possible: list[list[Phase]] = []
  for here, then in work:
    phases.beside(*itertools.chain(*possible[:2]))
    phases.run(*here)
    phases.wait()
    possible = possible[2:] + then
  phases.run(*itertools.chain(*possible))
