"""The table of an ablation, from the figures of its arms and seeds."""

import dataclasses
import json
import types

import numpy as np
import pytest

from realm_jax.data.qa import Question
from realm_jax.evals import ablations
from realm_jax.evals.qa import QaScores


def write(folder, arm, seed, **figures):
  path = folder / f"{seed}.{arm}.json"
  path.write_text(json.dumps({"questions": 63, **figures}))
  return path


def test_means_over_seeds_and_differences_seed_by_seed(tmp_path):
  em = {"realm": [0.3, 0.4, 0.8], "stale": [0.2, 0.35, 0.5]}
  paths = {
    arm: [
      write(tmp_path, arm, i, exact_match=value, recall_5=0.25)
      for i, value in enumerate(values)
    ]
    for arm, values in em.items()
  }
  paper = {"stale": (28.7, 15.1), "uniform": (32.3, 24.2)}
  table = ablations.write(tmp_path, paths, {}, paper, {"seconds_total": 7.0})
  summary = json.loads((tmp_path / "table.json").read_text())
  assert (tmp_path / "table.md").read_text() == table + "\n"
  assert (summary["questions"], summary["seconds_total"]) == (63, 7.0)
  assert list(summary["arms"]) == ["realm", "stale"]
  for arm, values in em.items():
    of = summary["arms"][arm]["exact_match"]
    assert of["seeds"] == values
    assert of["mean"] == pytest.approx(np.mean(values))
    error = np.std(values, ddof=1) / np.sqrt(3)
    assert of["se"] == pytest.approx(error, abs=1e-5)
  lost = np.subtract(em["stale"], em["realm"])
  gain = summary["arms"]["stale"]["exact_match_gain"]
  assert gain["mean"] == pytest.approx(lost.mean())
  assert gain["se"] == pytest.approx(
    np.std(lost, ddof=1) / np.sqrt(3), abs=1e-5
  )
  first, _, realm, stale, *_, note = table.splitlines()
  assert first == (
    "| arm | EM | R@5 | has@5 | utility | EM - realm | paper EM | paper R@5 |"
  )
  assert (
    realm == "| realm | 0.500 ± 0.153 | 0.250 ± 0.000 | - | - | - | - | - |"
  )
  assert stale == (
    "| stale | 0.350 ± 0.087 | 0.250 ± 0.000 | - | - | -0.150 ± 0.076 | 28.7 |"
    " 15.1 |"
  )
  assert "63 held-out questions" in note and "(3)" in note


def test_of_one_seed_there_is_no_standard_error(tmp_path):
  paths = {"span": [write(tmp_path, "span", 0, exact_match=0.125)]}
  table = ablations.write(tmp_path, paths, {}, {}, {})
  assert "| span | 0.125 | - | - | - | - | - | - |" in table


def test_while_training_a_run_is_judged_by_its_own_index(tmp_path):
  paths, runs = {}, {}
  found = {"realm": [0.5, 0.75], "stale": [0.25, None]}
  for arm, seeds in found.items():
    paths[arm] = [write(tmp_path, arm, i, exact_match=0.5) for i in range(2)]
    runs[arm] = [tmp_path / f"{arm}{i}.jsonl" for i in range(2)]
    for path, value in zip(runs[arm], seeds, strict=True):
      rows = [
        {
          "step": step,
          "loss": float(step),
          "gold_in_candidates": value if step == 4 else None,
          "retrieval_utility": 9.0 if step < 3 else len(arm) + step,
        }
        for step in (1, 2, 3, 4)
      ]
      path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  table = ablations.write(tmp_path, paths, runs, {}, {})
  training = json.loads((tmp_path / "table.json").read_text())["training"]
  assert training["realm"]["loss"]["seeds"] == [3.5, 3.5]  # steps 3 and 4
  assert training["stale"]["gold_in_candidates"]["seeds"] == [0.25]
  gain = training["stale"]["gold_in_candidates_gain"]
  assert gain == {"mean": -0.25, "se": None}  # of the seed that has both
  realm, stale = [line for line in table.splitlines() if " 3.500 " in line]
  assert realm == (
    "| realm | 0.625 ± 0.125 | 8.500 ± 0.000 | 3.500 ± 0.000 | - | - | - |"
  )
  assert stale.endswith("| - | -0.250 | +0.000 ± 0.000 |")


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
  """What `measure` takes of a serve.run.Run."""

  params: dict
  block_emb: str
  config: dict = dataclasses.field(default_factory=lambda: {"eval_queries": 9})


def test_utility_is_of_what_both_parts_of_an_arm_started_from(
  tmp_path, monkeypatch
):
  scored = []

  def score_run(run, num_queries):
    assert num_queries == 9
    scored.append(run)
    return types.SimpleNamespace(retrieval_utility=np.array([0.5, 1.0, 3.0]))

  exact = QaScores([], {"exact_match": np.array([1.0, 0.0, 0.0, 1.0])})
  found = {"recall_5": np.array([1.0, np.nan]), "answer_recall_5": np.ones(2)}
  monkeypatch.setattr(ablations.pretrain, "score_run", score_run)
  monkeypatch.setattr(
    ablations.qa, "score_run", lambda run, _: {tuned: exact}[run]
  )
  monkeypatch.setattr(
    ablations.qa, "recall_of_run", lambda run, _: {ict: found}[run]
  )
  tuned = Opened({"embedder": "tuned", "reader": "tuned"}, "tuned rows")
  ict = Opened({"embedder": "ict"}, "ict rows")
  realm = Opened({"embedder": "realm", "encoder": "realm"}, "realm rows")
  questions = [Question(str(i), "?", ["a"]) for i in range(4)]
  path = tmp_path / "seed0.realm_encoder.json"
  ablations.measure(tuned, ict, realm, questions, path)
  (start,) = scored
  assert start.params == {"embedder": "ict", "encoder": "realm"}
  assert start.block_emb == "ict rows"
  figures = json.loads(path.read_text())
  assert figures["retrieval_utility"] == 1.5
  assert (figures["exact_match"], figures["exact_match_sum"]) == (0.5, 2)
  assert (figures["recall_5"], figures["answer_recall_5"]) == (1, 1)
