"""The whole demo on a corpus of 60 articles: every phase, and none twice."""

from realm_jax import files


def test_every_phase_once(own, start, tmp_path):
  phases = ("ict", "encoder", "pretrain", "finetune")
  arguments = (
    "demo",
    "--config=configs/demo.py:smoke",
    f"--workdir={tmp_path}",
    f"--config.data.corpus={own.corpus}",
    "--config.data.text=sentences",
    "--config.data.qa=files",
    *(
      f"--config.data.qa_{split}={own.folder / split}.jsonl"
      for split in ("train", "dev", "test")
    ),
    *(f"--config.{phase}.mesh.data=1" for phase in phases),
    *(f"--config.{phase}.encoder.num_hidden_layers=1" for phase in phases),
    *(f"--config.{phase}.train.num_steps=2" for phase in phases),
    "--config.encoder.text_weights=(1.0,)",
    "--config.pretrain.text_weights=(1.0,)",
    "--noconfig.frozen_retriever",
  )
  outcome = start(*arguments)
  assert outcome.code == 0, outcome.err
  summary = files.read_json(tmp_path / "summary.json")
  assert list(summary["seconds"]) == sorted(
    ["prepare", *phases, "ict_index", "pretrain_index", "finetune_index",
     "evaluate"]
  )  # fmt: skip
  assert summary["questions"] == 20
  assert set(summary["recall"]) >= {"random", "ict", "realm", "bm25"}
  assert set(summary["exact_match"]) >= {"realm", "no_retrieval", "bm25_title"}
  assert set(summary["retrieval_utility"]) == {"start", "end"}
  assert "20 held-out questions" in outcome.out
  assert (tmp_path / "report.html").exists()

  before = (tmp_path / "pretrain" / "metrics.jsonl").read_bytes()
  again = start(*arguments)
  assert again.code == 0, again.err
  assert "== " not in again.out
  assert (tmp_path / "pretrain" / "metrics.jsonl").read_bytes() == before
