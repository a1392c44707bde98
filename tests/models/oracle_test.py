"""The four models equal the reference, on configs of many kinds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reference_numbers as reference

FURTHER = ("position_ids", "head_mask", "inputs_embeds")
CHOICE = ("block_idx", "candidate", "start_pos", "end_pos")


def further(call, io, name):
  """What `call` gives with each further argument, under its stored name."""
  got = {}
  for key in FURTHER:
    ids = {"input_ids": None} if key == "inputs_embeds" else {}
    got[f"{name}_{key}"] = call(**{key: io[key]}, **ids)
  return got


@reference.each
def test_embedder(path):
  model, io = reference.load(path, "embedder")
  embed = reference.caller(model, {k: io[k] for k in reference.SEQUENCES})
  name = "projected_score"

  def outputs(params):
    def score(**more):
      return embed(params, **more).projected_score

    every = {"output_hidden_states": True, "output_attentions": True}
    out = embed(params, **every)
    masked = embed(params, head_mask=io["head_mask"], output_attentions=True)
    nothing = np.zeros_like(io["attention_mask"])
    return {
      name: score(),
      "hidden_states": jnp.stack(out.hidden_states),
      "attentions": jnp.stack(out.attentions),
      "attentions_head_mask": jnp.stack(masked.attentions),
      f"{name}_one_head_mask": score(head_mask=io["head_mask"][0]),
      f"{name}_nothing_attended": score(attention_mask=nothing),
      f"{name}_ids_only": score(attention_mask=None, token_type_ids=None),
      **further(score, io, name),
    }

  reference.same(model, io, outputs)


@reference.each
@pytest.mark.parametrize("name", ["scorer", "scorer_own_query"])
def test_scorer(path, name):
  model, io = reference.load(path, name)
  own = {"query_embedder"} if name == "scorer_own_query" else set()
  assert set(model.params) == {"embedder"} | own
  query = {k: io[k] for k in reference.SEQUENCES}
  blocks = {f"candidate_{k}": io[f"candidate_{k}"] for k in reference.SEQUENCES}
  score, score_alone = (
    reference.caller(model, query | blocks),
    reference.caller(model, query),
  )
  length = io["position_ids"].shape[1]

  def outputs(params):
    out = score(params)
    embeds = score_alone(
      params, candidate_inputs_embeds=io["candidate_inputs_embeds"]
    )
    moved = reference.caller(model, {})(
      params,
      input_ids=io["input_ids"][:, :length],
      candidate_input_ids=io["candidate_input_ids"][..., :length],
      position_ids=io["position_ids"],
    )
    masked = score(params, head_mask=io["head_mask"])
    return {
      reference.SCORE: out.relevance_score,
      "query_score": out.query_score,
      "candidate_score": out.candidate_score,
      f"{reference.SCORE}_candidate_embeds": embeds.relevance_score,
      f"{reference.SCORE}_position_ids": moved.relevance_score,
      f"{reference.SCORE}_head_mask": masked.relevance_score,
    }

  def loss(params, _):
    return (score(params).relevance_score * io["relevance_weight"]).sum()

  # The gradients of a shared embedder are among those of two.
  reference.same(model, io, outputs, loss if own else None, np.zeros(()))


@reference.each
def test_encoder(path):
  model, io = reference.load(path, "encoder")
  names = (*reference.SEQUENCES, reference.SCORE, "labels", "mlm_mask")
  encode = reference.caller(model, {k: io[k] for k in names})
  ignored = np.where(io["mlm_mask"] == 0, -100, io["labels"])
  even = np.arange(ignored.shape[1]) % 2 == 0
  half = np.where(even, -100, io["labels"])

  def outputs(params):
    def loss(**more):
      return encode(params, **more).loss

    def everywhere(score):
      return loss(relevance_score=score, mlm_mask=None)

    out = encode(params)
    return {
      "logits": out.logits,
      "loss": out.loss,
      "loss_no_mlm_mask": everywhere(io[reference.SCORE]),
      f"grad_no_mlm_mask/{reference.SCORE}": jax.grad(everywhere)(
        io[reference.SCORE]
      ),
      "loss_mlm_share": loss(mlm_mask=io["mlm_share"]),
      "loss_labels_ignored": loss(labels=ignored, mlm_mask=None),
      "loss_half_ignored": loss(labels=half),
      **further(functools.partial(loss, mlm_mask=None), io, "loss"),
    }

  def loss(params, score):
    return encode(params, relevance_score=score).loss

  reference.same(model, io, outputs, loss, io[reference.SCORE])


@reference.each
def test_reader(path):
  model, io = reference.load(path, "reader")
  ends = ("start_positions", "end_positions")
  gold = {k: io[k] for k in (*ends, "has_answers")}
  given = {
    k: io[k] for k in (*reference.SEQUENCES, reference.SCORE, "block_mask")
  }
  read, read_gold = (
    reference.caller(model, given),
    reference.caller(model, given | gold),
  )
  nowhere = {k: np.full_like(io[k], -1) for k in ends}
  nowhere["has_answers"] = np.zeros_like(io["has_answers"])

  def outputs(params):
    def loss(**more):
      return read_gold(params, **more).loss

    out, unlabelled = read_gold(params), read(params)
    assert unlabelled.loss is None
    names = (*reference.LOSSES, "retriever_correct", "reader_correct", *CHOICE)
    return {
      **{k: getattr(out, k) for k in names},
      **{f"unlabelled_{k}": getattr(unlabelled, k) for k in CHOICE},
      "loss_no_answer": loss(**nowhere),
      "loss_no_label_columns": loss(**{k: io[k][:, :0] for k in ends}),
      **further(loss, io, "loss"),
    }

  def loss(params, score):
    return read_gold(params, relevance_score=score).loss

  reference.same(model, io, outputs, loss, io[reference.SCORE])
