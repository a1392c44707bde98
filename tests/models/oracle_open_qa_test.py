"""Open-domain QA equals the reference, from a question's text to its loss."""

import numpy as np
import pytest

import realm_jax
from realm_jax import pretrained
from tests import reference_numbers as reference


@reference.each
def test_open_qa(path):
  model, io = reference.load(path, "openqa")
  questions = [("", "")]
  more = sum(k.startswith("more/question/") for k in io)
  questions += [("more/", f"/{i}") for i in range(more)]
  for before, after in questions:
    kept = {
      k.removeprefix(before).removesuffix(after): v
      for k, v in io.items()
      if k.startswith(before) and k.endswith(after)
    }
    same_answers(model, kept)


def same_answers(model, io):
  """One question: its tokens, all blocks joined with it, losses, answer."""
  tokens, ids = question_of(model, io)
  has, starts, ends, joint = model.retriever(
    np.arange(len(model.retriever.block_records)),
    np.asarray(tokens["input_ids"]),
    ids,
    max_length=model.config.reader_seq_len,
  )
  got = {
    **{k: tokens[k] for k in reference.SEQUENCES},
    **{
      f"all_{k}": joint[k]
      for k in (*reference.SEQUENCES, "special_tokens_mask")
    },
    "all_has_answers": has,
    "all_start_pos": starts,
    "all_end_pos": ends,
  }
  trained = realm_jax.open_qa(model, tokens, answer_ids=ids, train=True)
  labelled = realm_jax.open_qa(model, tokens, answer_ids=ids)
  asked = realm_jax.open_qa(model, tokens)
  assert asked.reader_output.loss is None
  for loss in reference.LOSSES:
    got[loss] = getattr(trained.reader_output, loss)
    got[f"eval_{loss}"] = getattr(labelled.reader_output, loss)
  got["train_predicted_answer_ids"] = trained.predicted_answer_ids
  got["eval_predicted_answer_ids"] = asked.predicted_answer_ids
  for field in ("block_idx", "start_pos", "end_pos"):
    got[field] = getattr(asked.reader_output, field)
  for name, value in got.items():
    reference.close(value, io[name], name)


def question_of(model, io):
  """The tokens of a question and the wordpieces of its answers."""
  ids = [
    model.tokenizer(str(a), add_special_tokens=False)["input_ids"]
    for a in io["answers"]
  ]
  return model.tokenizer([str(io["question"])]), ids


@reference.each
def test_open_qa_gradients(path):
  model, io = reference.load(path, "openqa")
  if not any(np.any(v) for k, v in io.items() if k.startswith("grad/")):
    pytest.skip("no answer in any block: all gradients are zero")
  tokens, ids = question_of(model, io)
  evidence = pretrained.find_evidence(model, tokens, ids, train=True)
  question = {k: np.asarray(tokens[k]) for k in reference.SEQUENCES}
  answer = reference.caller(model, question | {"evidence": evidence})

  def loss(params, _):
    return answer(params).reader_output.loss

  reference.same(model, io, lambda params: {}, loss, np.zeros(()))
