"""Fine-tuning on a user's own questions, then a question asked."""

import json

import pytest

from realm_jax.train import metrics


def test_two_steps_then_a_question(own, start, tmp_path):
  outcome = start(
    "finetune_qa",
    "--config=configs/finetune.py:smoke",
    f"--workdir={tmp_path}",
    *own.flags(),
    "--config.train.num_steps=2",
  )
  assert outcome.code == 0, outcome.err
  *steps, dev = metrics.read_metrics(tmp_path)
  assert [line["step"] for line in steps] == [1, 2]
  assert 0 <= dev["dev/exact_match"] <= 1
  assert 0 <= dev["dev/recall_5"] <= 1

  outcome = start("ask", f"--workdir={tmp_path}", "a town on the Tyne")
  assert outcome.code == 0, outcome.err
  assert outcome.out.startswith("answer: ")
  assert "p(z|x) 0." in outcome.out


@pytest.mark.nightly  # another compilation of fine-tuning
def test_without_held_out_questions(own, start, tmp_path):
  """Nothing is evaluated, and the swaps are judged by training questions."""
  (tmp_path / "some.jsonl").write_text(
    json.dumps({"question": "a town on the Ure", "answer": ["Goldale"]})
  )
  outcome = start(
    "prepare_data",
    "--config=configs/own.py:finetune",
    f"--workdir={tmp_path}",
    f"--config.data.corpus={own.corpus}",
    f"--config.data.qa_train={tmp_path / 'some.jsonl'}",
    "--config.data.tokenizer.vocab_size=400",
  )
  assert "1/0/0 questions" in outcome.out, outcome.err
  outcome = start(
    "finetune_qa",
    "--config=configs/finetune.py:smoke",
    f"--workdir={tmp_path}",
    *own.flags()[1:],  # not its data
    "--config.train.num_steps=2",
  )
  assert outcome.code == 0, outcome.err
  assert len(metrics.read_metrics(tmp_path)) == 2
