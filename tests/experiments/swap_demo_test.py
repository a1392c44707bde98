"""The whole knowledge swap at smoke size: every phase, and none twice."""

import pytest

from realm_jax import files
from realm_jax.data import swap
from realm_jax.retrieval import index

PHASES = ("ict", "encoder", "finetune")


@pytest.mark.nightly
def test_every_phase_once(start, tmp_path):
  arguments = [
    "swap_demo",
    "--config=configs/swap.py:smoke",
    f"--workdir={tmp_path}",
    *(f"--config.{phase}.mesh.data=1" for phase in PHASES),
  ]
  outcome = start(*arguments)
  assert outcome.code == 0, outcome.err
  summary = files.read_json(tmp_path / "summary.json")
  others = ("facts", "prepare", "prepare_ict", "index", "swap", "ask")
  assert sorted(summary["seconds"]) == sorted([*PHASES, *others])
  for group in swap.GROUPS:
    of_group = summary["groups"][group]
    assert sum(of_group[split]["count"] for split in swap.SPLITS) > 0
  assert "changed leaders" in outcome.out
  newest = index.latest_version(tmp_path / "finetune")
  manifest = index.version_path(tmp_path / "finetune", newest)
  changed = files.read_json(manifest / "manifest.json")["changed"]
  assert changed["updated"] > 0 and changed["unchanged"] > 0

  again = start(*arguments)
  assert again.code == 0, again.err
  assert "== " not in again.out
  assert "changed leaders" in again.out
