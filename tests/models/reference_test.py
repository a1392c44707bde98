"""The models equal the PyTorch reference: outputs, losses, gradients."""

import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from realm_jax.config import RealmConfig
from realm_jax.models import convert
from realm_jax.models.embedder import RealmEmbedder, RealmScorer
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.reader import RealmReader

REFERENCE = pathlib.Path(__file__).parents[1] / "testdata" / "reference"


def load(model, prefix=""):
  """Config, params and recorded numbers of one reference model."""
  path = REFERENCE / model
  config = RealmConfig.from_dict(json.loads((path / "config.json").read_text()))
  state = load_file(path / "model.safetensors")
  state = {
    k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)
  }
  table = "embedder" if model == "scorer" else model
  params = convert.from_torch_state(state, config.num_hidden_layers, table)
  return config, params, dict(np.load(path / "io.npz"))


def close(got, want, tol=5e-5):
  got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
  assert got.reshape(want.shape).shape == want.shape
  scale = max(1e-6, np.abs(want).max(initial=0))
  np.testing.assert_allclose(
    got.reshape(want.shape) / scale, want / scale, rtol=0, atol=tol
  )


def inputs_of(io, *names):
  return {n: io[n] for n in ("attention_mask", "token_type_ids", *names)}


def test_embedder():
  config, params, io = load("embedder")
  module = RealmEmbedder(config)

  def run(ids, **kw):
    return module.apply({"params": params}, ids, **inputs_of(io), **kw)

  out = run(io["input_ids"])
  close(out.projected_score, io["projected_score"])
  assert out.hidden_states is None and out.attentions is None
  out = run(io["input_ids"], output_hidden_states=True, output_attentions=True)
  close(np.stack(out.hidden_states), io["hidden_states"])
  close(np.stack(out.attentions), io["attentions"])
  out = run(io["input_ids"], head_mask=io["head_mask"])
  close(out.projected_score, io["projected_score_head_mask"])
  table = params["realm"]["embeddings"]["word_embeddings"]["embedding"]
  out = run(None, inputs_embeds=table[io["input_ids"]])
  close(out.projected_score, io["projected_score"])


def test_embedder_wants_ids_or_embeds():
  config, params, io = load("embedder")
  with pytest.raises(ValueError, match="exactly one"):
    RealmEmbedder(config).apply({"params": params}, **inputs_of(io))


def test_scorer():
  config, params, io = load("scorer", "embedder.")
  out = RealmScorer(config).apply(
    {"params": {"embedder": params}},
    **inputs_of(
      io,
      "input_ids",
      "candidate_input_ids",
      "candidate_attention_mask",
      "candidate_token_type_ids",
    ),
  )
  for name in ("relevance_score", "query_score", "candidate_score"):
    close(getattr(out, name), io[name])


def test_encoder_and_its_gradients():
  config, params, io = load("encoder")
  module = RealmKnowledgeAugEncoder(config)

  def run(params, score, labels, **kw):
    return module.apply(
      {"params": params},
      io["input_ids"],
      **inputs_of(io),
      relevance_score=score,
      labels=labels,
      **kw,
    )

  mask = {"mlm_mask": io["mlm_mask"]}
  out = run(params, io["relevance_score"], io["labels"], **mask)
  close(out.logits, io["logits"])
  close(out.loss, io["loss"])
  ignored = np.where(io["mlm_mask"] == 0, -100, io["labels"])
  out = run(params, io["relevance_score"], ignored)
  close(out.loss, io["loss_labels_ignored"])
  grads, grad_score = jax.grad(
    lambda p, s: run(p, s, io["labels"], **mask).loss, (0, 1)
  )(params, io["relevance_score"])
  close(grad_score, io["grad/relevance_score"], 3e-4)
  same_gradients(grads, io, config, "encoder")


def test_encoder_logits_at_the_masked_positions_alone():
  config, params, io = load("encoder")
  module = RealmKnowledgeAugEncoder(config)
  ids = io["input_ids"].reshape(-1, io["input_ids"].shape[-1])
  kw = {k: v.reshape(ids.shape) for k, v in inputs_of(io).items()}
  positions = np.tile(np.array([[2, 0, 5]]), (ids.shape[0], 1))
  everywhere = module.apply({"params": params}, ids, **kw).logits
  joint = convert_inputs(ids, kw)
  some = module.apply(
    {"params": params},
    joint,
    positions,
    method=RealmKnowledgeAugEncoder.mlm_logits,
  )
  close(some, np.asarray(everywhere)[:, [2, 0, 5]], 1e-6)


def test_reader_and_its_gradients():
  config, params, io = load("reader")
  module = RealmReader(config)
  labels = ("start_positions", "end_positions", "has_answers", "block_mask")

  def run(params, score, **kw):
    given = {**inputs_of(io, *labels), **kw}
    return module.apply(
      {"params": params}, io["input_ids"], relevance_score=score, **given
    )

  out = run(params, io["relevance_score"])
  for name in (
    "loss retriever_loss reader_loss retriever_correct reader_correct"
    " block_idx candidate start_pos end_pos"
  ).split():
    close(getattr(out, name), io[name])
  none = np.full_like(io["start_positions"], -1)
  out = run(
    params,
    io["relevance_score"],
    start_positions=none,
    end_positions=none,
    has_answers=np.zeros_like(io["has_answers"]),
  )
  close(out.loss, io["loss_no_answer"])
  grads, grad_score = jax.grad(lambda p, s: run(p, s).loss, (0, 1))(
    params, io["relevance_score"]
  )
  close(grad_score, io["grad/relevance_score"], 3e-4)
  same_gradients(grads, io, config, "reader")


def test_reader_says_what_is_missing():
  config, params, io = load("reader")
  for missing in ("relevance_score", "block_mask", "token_type_ids"):
    given = inputs_of(io, "relevance_score", "block_mask")
    with pytest.raises(ValueError, match=missing):
      RealmReader(config).apply(
        {"params": params}, io["input_ids"], **{**given, missing: None}
      )


def test_names_go_both_ways():
  for model in ("embedder", "encoder", "reader"):
    config, params, _ = load(model)
    state = convert.to_torch_state(params, config.num_hidden_layers, model)
    again = convert.from_torch_state(state, config.num_hidden_layers, model)
    jax.tree.map(np.testing.assert_array_equal, params, again)


def convert_inputs(ids, kw):
  from realm_jax.models import bert

  return bert.make_inputs(ids, **kw)


def same_gradients(grads, io, config, model):
  got = convert.to_torch_state(grads, config.num_hidden_layers, model)
  want = {
    k.removeprefix("grad/"): v
    for k, v in io.items()
    if k.startswith("grad/") and k != "grad/relevance_score"
  }
  scale = max(np.abs(v).max() for v in want.values())
  compared = 0
  for name, value in want.items():
    # a bias that only shifts a softmax: zero but for rounding
    if np.abs(value).max() < 1e-5 * scale:
      continue
    gradient = np.array(got[name])
    if name.endswith("word_embeddings.weight"):
      # torch drops the lookup gradient of padding_idx
      gradient[config.pad_token_id] = value[config.pad_token_id]
    close(gradient, value, 3e-4)
    compared += 1
  assert compared > 10
