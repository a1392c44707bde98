"""An ablation suite: what is trained, once and in which order; its arguments."""

import pathlib

import pytest

from configs import table2
from experiments import arms
from realm_jax import files
from realm_jax.config import InputError
from tests.experiments import demo_test


class Listing:
  """In the place of Phases: writes down what would be done."""

  def __init__(self):
    self.done, self.here, self._beside = [], [], []

  def run(self, *phases):
    for phase in phases:
      self._check(phase, self.done)
      self.here.append(phase.name)
      self.done.append(phase.name)

  def beside(self, *phases):
    known = list(self.done)
    for phase in phases:
      self._check(phase, known)
      known.append(phase.name)
    self._beside = known

  def wait(self):
    self.done = list(dict.fromkeys([*self.done, *self._beside]))

  def _check(self, phase, done):
    """What a run starts from is there by then, and it is not done already."""
    assert phase.name not in done
    seed = phase.name.split(".")[0]
    for section in phase.args:
      if hasattr(section, "init"):
        for source in section.init.values():
          name = pathlib.Path(source).name
          assert not source or f"{seed}.{name}" in done, (phase.name, source)


def listed(**changes):
  config = table2.get_config("smoke")
  config.update(changes)
  listing = Listing()
  seeds = [arms.Seed(config, pathlib.Path("w"), s) for s in config.seeds]
  names = arms.names(config)
  arms.run(listing, (pair for seed in seeds for pair in seed.work(names)))
  return listing


def test_all_arms_once_and_after_what_they_start_from():
  listing = listed(seeds=(3, 5))
  for seed in (3, 5):
    of = [n for n in listing.done if n.startswith(f"seed{seed}.")]
    assert sum("_index" not in n and "evaluate" not in n for n in of) == (
      2 + 5 + 8  # warm starts, pre-trainings, fine-tunings
    )
    assert sum("evaluate" in n for n in of) == 8
  # two processes: most fine-tuning is beside
  assert (
    sum("finetune" in name for name in listing.here) < len(listing.done) / 9
  )


def test_only_what_the_arms_asked_for_need():
  listing = listed(arms="baseline,stale", seeds=(0,))
  trained = {n for n in listing.done if "_index" not in n}
  assert trained == {
    f"seed0.{name}"
    for name in (
      "ict", "encoder", "pretrain_stale", "finetune_baseline",
      "evaluate_baseline", "finetune_stale", "evaluate_stale",
    )
  }  # fmt: skip


def test_an_arm_differs_in_what_it_is_named_for():
  config = table2.get_config("demo")
  config.data.dir = ""
  seed = arms.Seed(config, pathlib.Path("w"), 7)
  runs = {
    phase.name.partition("pretrain_")[2]: phase.args[0].to_dict()
    for here, _ in seed.work(arms.names(config))
    for phase in here
    if phase.work.__name__ == "pretrain" and "encoder" not in phase.name
  }
  assert {r["seed"] for r in runs.values()} == {7}

  def changed(name):
    def flat(tree, prefix=""):
      for key, value in tree.items():
        if isinstance(value, dict):
          yield from flat(value, f"{prefix}{key}.")
        else:
          yield f"{prefix}{key}", value

    ours, theirs = dict(flat(runs[name])), dict(flat(runs["realm"]))
    return {k: v for k, v in ours.items() if theirs[k] != v}

  assert changed("span") == {"masking": "span"}
  assert changed("uniform") == {"masking": "uniform", "fill.query": 0.55}
  assert changed("stale") == {
    "refresh.every_steps": 30 * config.pretrain.refresh.every_steps
  }
  assert changed("no_ict") == {"init.embedder": ""}


def test_an_arm_starts_from_and_is_measured_by_what_it_is_named_for():
  config = table2.get_config("smoke")
  seed = arms.Seed(config, pathlib.Path("w"), 7)
  phases = {
    phase.name.removeprefix("seed7."): phase.args
    for _, then in seed.work(arms.names(config))
    for arm in then
    for phase in arm
  }
  for name, from_runs in {
    "realm": ("pretrain_realm", "pretrain_realm"),
    "realm_retriever": ("pretrain_realm", "encoder"),
    "realm_encoder": ("ict", "pretrain_realm"),
    "baseline": ("ict", "encoder"),
    "no_ict": ("pretrain_no_ict", "pretrain_no_ict"),
  }.items():
    starts = tuple(pathlib.Path("w/seed7") / start for start in from_runs)
    run, *measured_from, path = phases[f"evaluate_{name}"]
    assert run == pathlib.Path(f"w/seed7/finetune_{name}")
    assert tuple(measured_from) == starts
    assert path == seed.measured(name)
    section, workdir = phases[f"finetune_{name}"]
    assert workdir == run
    init = section.init
    assert (init.embedder, init.encoder) == tuple(map(str, starts))


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"arms": "realm,frozen"}, r"--arms=realm,frozen: there is no frozen"),
    ({"arms": ""}, "wanted some of"),
    ({"seeds": ()}, "--seeds=: wanted some"),
    ({"seeds": (0, 4, 0)}, "--seeds=0,4,0: wanted some, each once"),
  ],
)
def test_what_is_not_there_is_said(changes, said):
  with pytest.raises(InputError, match=said):
    listed(**changes)


def test_short_arguments():
  from experiments.reproduce import in_full

  assert in_full(["r", "--suite=table2", "--size=smoke", "--seeds=0,4"]) == [
    "r", "--config=configs/table2.py:smoke", "--config.seeds=0,4",
    "--workdir=runs/table2-smoke",
  ]  # fmt: skip
  given = ["r", "--config=my.py", "--workdir=w", "--config.seeds=(1,)"]
  assert in_full(given) == given


@pytest.mark.nightly
def test_two_arms_end_in_a_table(own, start, tmp_path):
  arguments = [
    "reproduce", "--size=smoke", f"--workdir={tmp_path}", "--seeds=0,1",
    *demo_test.small(own),
  ]  # fmt: skip
  outcome = start(*arguments, "--arms=realm,baseline")
  assert outcome.code == 0, outcome.err
  table = files.read_json(tmp_path / "table.json")
  assert table["questions"] == 20
  assert set(table["arms"]) == {"realm", "baseline"}
  assert len(table["arms"]["realm"]["exact_match"]["seeds"]) == 2
  for arm in table["arms"].values():
    assert len(arm["retrieval_utility"]["seeds"]) == 2
  again = start(*arguments, "--arms=baseline")
  assert again.code == 0 and "== " not in again.out, again.err
