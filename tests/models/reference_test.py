"""The models equal the PyTorch reference: outputs, losses, gradients."""

import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from realm_jax.config import InputError, RealmConfig
from realm_jax.models import bert, convert
from realm_jax.models.embedder import RealmEmbedder, RealmScorer
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.reader import RealmReader

REFERENCE = pathlib.Path(__file__).parents[1] / "testdata" / "reference"
MODELS = {
  "embedder": RealmEmbedder,
  "scorer": RealmScorer,
  "encoder": RealmKnowledgeAugEncoder,
  "reader": RealmReader,
}
LABELS = ("start_positions", "end_positions", "has_answers")


def load(name, **overrides):
  """Module, params and recorded numbers of one reference model."""
  path = REFERENCE / name
  module = MODELS[name](RealmConfig.from_pretrained(path, **overrides))
  state = load_file(path / "model.safetensors")
  params = convert.from_torch_state(module, state)
  return module, params, dict(np.load(path / "io.npz"))


def close(got, want, tol=5e-5):
  got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
  assert got.size == want.size
  scale = max(1e-6, np.abs(want).max(initial=0))
  np.testing.assert_allclose(
    got.reshape(want.shape) / scale, want / scale, rtol=0, atol=tol
  )


def inputs_of(io, *names):
  return {n: io[n] for n in ("attention_mask", "token_type_ids", *names)}


def test_embedder():
  module, params, io = load("embedder")

  @jax.jit
  def run(**kw):
    given = inputs_of(io, "input_ids") | kw
    return module.apply({"params": params}, **given).to_tuple()

  (projected,) = run()  # hidden states only where they are asked for
  close(projected, io["projected_score"])
  masked = run(head_mask=io["head_mask"])[0]
  close(masked, io["projected_score_head_mask"])
  one = bert.all_head_masks(io["head_mask"][0], module.config)
  assert one.shape == (3, 1, 4, 1, 1)  # as the reference broadcasts it
  assert bert.all_head_masks(one, module.config) is one


def test_embedder_of_embeds_with_a_mask_for_each_query_and_positions():
  module, params, io = load("embedder")
  table = params["realm"]["embeddings"]["word_embeddings"]["embedding"]
  given = inputs_of(io) | {"inputs_embeds": table[io["input_ids"]]}
  given["attention_mask"] = np.repeat(io["attention_mask"][:, None], 14, axis=1)
  run = jax.jit(
    lambda positions: (
      module.apply(
        {"params": params}, **given, position_ids=positions
      ).projected_score
    )
  )
  at = np.arange(14)[None]
  close(run(at), io["projected_score"])
  assert np.abs(run(at[:, ::-1]) - io["projected_score"]).max() > 0.1


def test_the_config_decides_where_the_caller_does_not():
  module, params, io = load(
    "embedder",
    output_hidden_states=True,
    output_attentions=True,
    return_dict=False,
  )

  def run(**kw):
    given = inputs_of(io, "input_ids") | kw
    return module.apply({"params": params}, **given)

  projected, states, attentions = jax.jit(run)()  # in the reference's order
  close(projected, io["projected_score"])
  close(np.stack(states), io["hidden_states"])
  close(np.stack(attentions), io["attentions"])
  out = jax.eval_shape(lambda: run(return_dict=True, output_attentions=False))
  assert out.attentions is None and len(out.hidden_states) == len(states)
  assert out["hidden_states"] is out[1] is out.to_tuple()[-1]


def test_scorer():
  module, params, io = load("scorer")
  candidates = {k: io[k] for k in io if k.startswith("candidate_")}
  scores = candidates.pop("candidate_score")
  given = inputs_of(io, "input_ids")
  run = jax.jit(lambda kw: module.apply({"params": params}, **given, **kw))
  out = run(candidates)
  for name in ("relevance_score", "query_score", "candidate_score"):
    close(getattr(out, name), io[name])
  table = params["embedder"]["realm"]["embeddings"]["word_embeddings"]
  ids = candidates.pop("candidate_input_ids")
  rows = table["embedding"][ids].reshape(20, 17, 32)  # as the reference wants
  close(run({**candidates, "candidate_inputs_embeds": rows})[2], scores)
  out = jax.eval_shape(
    lambda: module.apply(
      {"params": params},
      **given,
      candidate_input_ids=ids.reshape(20, 17),
      return_dict=False,
      output_attentions=True,
    )
  )
  assert [x.shape for x in out] == [(5, 4), (5, 16), (5, 4, 16)]


def test_scorer_with_an_embedder_for_queries():
  module, params, io = load("scorer")
  pair = RealmScorer(module.config, RealmEmbedder(module.config))
  other = jax.tree.map(lambda x: 1.1 * x, params["embedder"])
  both = {"params": {**params, "query_embedder": other}}
  ids = io["candidate_input_ids"]
  run = jax.jit(
    lambda: pair.apply(both, io["input_ids"], candidate_input_ids=ids)
  )
  out = run()
  embedder = RealmEmbedder(module.config)
  embed = jax.jit(lambda: embedder.apply({"params": other}, io["input_ids"]))
  query = embed().projected_score
  close(out.query_score, query, 1e-6)
  close(
    out.relevance_score,
    np.einsum("bp,bkp->bk", query, out.candidate_score),
    1e-5,
  )


def test_encoder_and_its_gradients():
  module, params, io = load("encoder")

  @jax.jit
  def run(params, score, labels, mlm_mask):
    out = module.apply(
      {"params": params},
      io["input_ids"],
      **inputs_of(io),
      relevance_score=score,
      labels=labels,
      mlm_mask=mlm_mask,
    )
    return out.loss, out.logits

  grad = jax.jit(jax.value_and_grad(run, (0, 1), has_aux=True))
  score, labels, mask = io["relevance_score"], io["labels"], io["mlm_mask"]
  (loss, logits), grads = grad(params, score, labels, mask)
  close(logits, io["logits"])
  close(loss, io["loss"])
  close(grads[1], io["grad/relevance_score"], 3e-4)
  same_gradients(module, grads[0], io)
  (loss, _), grads = grad(params, score, labels, np.zeros_like(mask))
  assert loss == 0 and not np.any(grads[1])
  ignored = np.where(mask == 0, -100, labels)
  close(run(params, score, ignored, None)[0], io["loss_labels_ignored"])
  few = np.float32(1e-3 * mask)  # a mean does not depend on the masks' size
  close(run(params, score, labels, few)[0], io["loss"])


def test_encoder_logits_at_the_masked_positions_alone():
  module, params, io = load("encoder")
  ids = io["input_ids"].reshape(-1, io["input_ids"].shape[-1])
  kw = {k: v.reshape(ids.shape) for k, v in inputs_of(io).items()}
  positions = np.tile(np.array([[2, 0, 5]]), (ids.shape[0], 1))
  run = jax.jit(module.apply, static_argnames="method")
  everywhere = run({"params": params}, ids, **kw).logits
  inputs = bert.make_inputs(ids, **kw)
  some = run({"params": params}, inputs, positions, method=module.mlm_logits)
  close(some, np.asarray(everywhere)[:, [2, 0, 5]], 1e-6)


def test_reader_and_its_gradients():
  module, params, io = load("reader")
  given = inputs_of(io, "input_ids", "block_mask")

  def run(params, score, labels):
    out = module.apply(
      {"params": params}, **given, relevance_score=score, **labels
    )
    return out.loss, out

  grad = jax.jit(jax.value_and_grad(run, (0, 1), has_aux=True))
  labels = {name: io[name] for name in LABELS}
  (_, out), grads = grad(params, io["relevance_score"], labels)
  names = (
    "loss retriever_loss reader_loss retriever_correct reader_correct"
    " block_idx candidate start_pos end_pos"
  ).split()
  for value, name in zip(out.to_tuple(), names, strict=True):
    close(value, io[name])  # in the reference's order
    close(getattr(out, name), io[name])
  close(grads[1], io["grad/relevance_score"], 3e-4)
  same_gradients(module, grads[0], io)
  read = {k: v[:3] if k.endswith("positions") else v for k, v in labels.items()}
  loss, _ = jax.jit(run)(params, io["relevance_score"], read)
  close(loss, io["loss"])  # of the blocks that are not read, no ends are needed
  none = np.full_like(io["start_positions"], -1)
  nowhere = np.zeros_like(io["has_answers"])
  labels = dict(zip(LABELS, (none, none, nowhere), strict=True))
  (loss, _), grads = grad(params, io["relevance_score"], labels)
  close(loss, io["loss_no_answer"])
  assert not np.any(grads[1])
  labels = dict(zip(LABELS, (none[:, :0], none[:, 0], nowhere), strict=True))
  loss, out = jax.eval_shape(run, params, io["relevance_score"], labels)
  assert out.reader_correct.shape == io["reader_correct"].shape
  loss, out = jax.eval_shape(run, params, io["relevance_score"], {})
  assert loss is None and len(out.to_tuple()) == 4


def test_reader_of_many_questions_is_the_reader_of_each():
  module, params, io = load("reader")
  names = (*LABELS, "block_mask", "input_ids", "relevance_score")
  one = inputs_of(io, *names)
  other = {k: np.roll(v, 1, axis=0) for k, v in one.items()}
  run = jax.jit(
    lambda given: module.apply(
      {"params": params}, **given, output_hidden_states=True
    )
  )
  first, second = run(one), run(other)
  both = run({k: np.stack([one[k], other[k]]) for k in one})
  losses = ("loss", "retriever_loss", "reader_loss")
  for name in losses:
    mean = (getattr(first, name) + getattr(second, name)) / 2
    close(getattr(both, name), mean)
  for name in ("reader_correct", "block_idx", "candidate", "start_pos"):
    want = np.stack([getattr(first, name), getattr(second, name)])
    np.testing.assert_array_equal(getattr(both, name), want)
  want = np.stack([first.hidden_states[1], second.hidden_states[1]])
  close(both.hidden_states[1], want)
  assert first.block_idx.shape == () and both.block_idx.shape == (2,)


def test_reader_says_what_is_missing():
  module, params, io = load("reader")
  given = inputs_of(io, "input_ids", "relevance_score", "block_mask")
  for missing in ("relevance_score", "block_mask", "token_type_ids"):
    with pytest.raises(InputError, match=missing):
      module.apply({"params": params}, **{**given, missing: None})


def same_gradients(module, grads, io):
  got = convert.to_torch_state(module, grads)
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
      gradient[module.config.pad_token_id] = value[module.config.pad_token_id]
    close(gradient, value, 3e-4)
    compared += 1
  assert compared > 10
