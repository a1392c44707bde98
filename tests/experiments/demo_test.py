"""The whole demo on a corpus of 60 articles: every phase, and none twice.

Where REALM_DEMO names a finished `launch/demo.sh DIR --smoke`, that one is
looked at, and not run a second time.
"""

import os
import pathlib

from realm_jax import files

PHASES = ("ict", "encoder", "pretrain", "finetune")
INDEXES = ("ict_index", "pretrain_index", "finetune_index")


def small(own):
  """What makes the smoke demo fit for the corpus, and smaller."""
  return (
    f"--config.data.corpus={own.corpus}",
    "--config.data.text=sentences",
    "--config.data.qa=files",
    *(
      f"--config.data.qa_{split}={own.folder / split}.jsonl"
      for split in ("train", "dev", "test")
    ),
    *(f"--config.{phase}.mesh.data=1" for phase in PHASES),
    *(f"--config.{phase}.encoder.num_hidden_layers=1" for phase in PHASES),
    *(f"--config.{phase}.train.num_steps=2" for phase in PHASES),
    "--config.encoder.text_weights=(1.0,)",
    "--config.pretrain.text_weights=(1.0,)",
  )


def test_every_phase_once(own, start, tmp_path):
  demo = pathlib.Path(os.environ.get("REALM_DEMO", tmp_path))
  arguments = ["demo", "--config=configs/demo.py:smoke", f"--workdir={demo}"]
  questions = 63
  if demo == tmp_path:
    arguments += small(own)
    questions = 20
    outcome = start(*arguments)
    assert outcome.code == 0, outcome.err
    assert f"{questions} held-out questions" in outcome.out
  summary = files.read_json(demo / "summary.json")
  assert list(summary["seconds"]) == sorted(
    [
      "prepare",
      *PHASES,
      *INDEXES,
      "evaluate",
      "evaluate_pretraining",
      "example",
    ]
  )
  assert summary["questions"] == questions
  assert set(summary["recall"]) >= {"random", "ict", "realm", "bm25"}
  assert set(summary["exact_match"]) >= {"realm", "no_retrieval", "bm25_title"}
  assert set(summary["retrieval_utility"]) >= {"start", "end"}
  assert (demo / "report.html").exists()
  for log in demo.glob("*.log"):  # of the phases beside
    assert "Traceback" not in log.read_text(), log

  before = (demo / "pretrain" / "metrics.jsonl").read_bytes()
  again = start(*arguments)
  assert again.code == 0, again.err
  assert "== " not in again.out
  assert f"{questions} held-out questions" in again.out
  assert (demo / "pretrain" / "metrics.jsonl").read_bytes() == before
