"""The forward passes: labels by brute force, given candidates, body positions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.models import objective
from realm_jax.types import QaBatch
from tests import tiny_realm as tiny


def on_device(tree):
  return jax.tree.map(jnp.asarray, tree)


def block_emb():
  shape = (tiny.ROWS, tiny.SIZES.retriever_proj_size)
  return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def body(tokens, block):
  row = tokens.token_ids[block, : tokens.lens[block]].tolist()
  return row[tokens.title_lens[block] :]


def ask(batch, tokens):
  """Answers a batch of questions."""
  output = _ask(
    tiny.params(), block_emb(), on_device(tokens), batch.question, tiny.BEAM
  )
  return tiny.open_qa(), output


_ask = jax.jit(tiny.open_qa(), static_argnums=4)


def few_words():
  """Blocks and questions of five wordpieces only: answers all over."""
  rng = np.random.default_rng(6)
  tokens = tiny.blocks()
  tokens.lens[: tiny.N : 2] = tiny.C - 3  # more than a reader sees
  filled = np.arange(tiny.C - 3) < tokens.lens[:, None]
  ids = rng.integers(5, 10, filled.shape)
  tokens = tokens.replace(token_ids=(ids * filled).astype(np.uint16))
  answers = rng.integers(5, 10, (tiny.B, 2, 4))
  lens = rng.choice([0, 1, 1, 2], (tiny.B, 2))
  batch = tiny.qa_batch(tokens)
  return tokens, QaBatch(
    batch.question,
    np.where(np.arange(4) < lens[..., None], answers, -1).astype(np.int32),
    lens.astype(np.int32),
    batch.example_ids,
  )


def test_labels_against_brute_force():
  tokens, batch = few_words()
  qa, output = ask(batch, tokens)
  for b in (0, 3, 5):  # an answer at the end, where it may not be read
    last = body(tokens, int(output.block_ids[b, 0]))[-2:]
    batch.answer_ids[b, 0, : len(last)] = last
    batch.answer_lens[b] = len(last), 0
  labels = qa.labels(on_device(tokens), batch, output)
  starts, ends = qa.spans()
  assert labels.has_answer.shape == (tiny.B, tiny.BEAM)
  assert labels.gold_span.shape == (tiny.B, tiny.READ, len(starts))
  beyond = 0
  for b in range(tiny.B):
    room = tiny.L - batch.question.attention_mask[b].sum() - 1
    answers = [
      answer[:n].tolist()
      for answer, n in zip(
        batch.answer_ids[b], batch.answer_lens[b], strict=True
      )
      if n
    ]
    for slot, block in enumerate(output.block_ids[b].tolist()):
      words = body(tokens, block)
      spans = [words[i:j] for i in range(len(words)) for j in range(i + 1, 13)]
      has_answer = any(a in spans for a in answers)
      assert labels.has_answer[b, slot] == has_answer
      if slot >= tiny.READ:
        continue
      seen = words[:room]  # one column is the last [SEP]
      want = [
        e < len(seen) and seen[s : e + 1] in answers
        for s, e in zip(starts, ends, strict=True)
      ]
      assert labels.gold_span[b, slot].tolist() == want
      beyond += has_answer and not any(want)
  assert beyond  # an answer that the block has and the reader can't see
  assert 0 < labels.has_answer.sum() < labels.has_answer.size


def test_the_best_span_is_one_of_the_body():
  tokens = tiny.blocks()
  batch = tiny.qa_batch(tokens)
  qa, output = ask(batch, tokens)
  starts, ends = qa.spans()
  logits = np.asarray(output.span_logits)
  for b in range(tiny.B):
    slot, span = np.unravel_index(logits[b].argmax(), logits[b].shape)
    assert output.block[b] == slot
    assert (output.start[b], output.end[b]) == (starts[span], ends[span])
    room = tiny.L - batch.question.attention_mask[b].sum() - 1
    length = len(body(tokens, int(output.block_ids[b, slot])))
    assert output.end[b] < min(length, room)
    for k in range(tiny.READ):
      length = len(body(tokens, int(output.block_ids[b, k])))
      allowed = ends < min(length, room)
      assert ((logits[b, k] > -1e30) == allowed).all()


def reader_of_one_wordpiece(wordpiece):
  """Params of a reader whose layers add nothing: a span's score rises with
  each of its two ends at which the wordpiece itself stands."""
  params = jax.tree.map(np.zeros_like, tiny.params()["reader"])
  bert_params, head = params["realm"], params["qa_outputs"]
  bert_params["embeddings"]["word_embeddings"]["embedding"][wordpiece, 0] = 1
  for norm in (
    bert_params["embeddings"]["norm"],
    *(bert_params[f"layers_{i}"]["attention_norm"] for i in range(2)),
    *(bert_params[f"layers_{i}"]["output_norm"] for i in range(2)),
    head["norm"],
  ):
    norm["scale"][:] = 1
  size = tiny.SIZES.span_hidden_size
  head["dense_intermediate"]["kernel"][0, 0] = 1  # at the start
  head["dense_intermediate"]["kernel"][0, size + 1] = 1  # at the end
  head["dense_output"]["kernel"][:2] = 1
  return params


def test_spans_count_from_the_body_whatever_the_query():
  """The body's third wordpiece is 2, beside a short question and a long one."""
  tokens = tiny.blocks()
  ids = np.full_like(tokens.token_ids, 5)
  ids[:, 3 + 2] = 9
  tokens = tokens.replace(
    token_ids=ids,
    title_lens=np.full_like(tokens.lens, 3),
    lens=np.full_like(tokens.lens, tiny.C - 3),
  )
  qa, batch = tiny.open_qa(), tiny.qa_batch(tokens)
  lens = batch.question.attention_mask.sum(1)
  assert lens.min() < lens.max()
  ids = np.zeros((tiny.B, tiny.READ), np.int32)

  @jax.jit
  def read(params, tokens, question):
    joint = qa.join(question, qa.gather_read(tokens, ids))
    return qa.read(params, question, *joint)

  logits = read(
    {"reader": reader_of_one_wordpiece(9)}, on_device(tokens), batch.question
  )
  starts, ends = qa.spans()
  best = np.asarray(logits).argmax(-1)
  assert (starts[best] == 2).all() and (ends[best] == 2).all()


@functools.cache
def found_and_given():
  """{marginalise: (with the candidates found, with the same ones given)}."""
  realms = {
    way: dataclasses.replace(tiny.realm(), marginalise=way)
    for way in ("token", "span")
  }
  params, tokens = tiny.params(), on_device(tiny.blocks())
  batch = tiny.pretrain_batch()

  @jax.jit
  def find(*args):
    return {way: realm(*args) for way, realm in realms.items()}

  @jax.jit
  def give(*args):
    return {way: realm.given(*args) for way, realm in realms.items()}

  found = find(params, block_emb(), tokens, batch)
  given = give(params, tokens, batch, found["token"].candidate_ids)
  return {way: (found[way], given[way]) for way in realms}


@pytest.mark.parametrize("marginalise", ["token", "span"])
def test_given_candidates_are_read_as_found_ones(marginalise):
  found, given = found_and_given()[marginalise]
  jax.tree.map(np.testing.assert_array_equal, found, given)
  batch = tiny.pretrain_batch()
  own = batch.own_block[:, None]
  assert not ((found.candidate_ids == own) & (own >= 0)).any()
  assert (found.candidate_ids[:, 0] == -1).all()
  assert (found.candidate_ids[:, 1:] >= 0).all()
  # The mean over what is read is a marginal: it lies between its parts.
  width = 1 if marginalise == "span" else tiny.M
  assert found.marginal_gold_log_probs.shape == (tiny.B, width)
  gold = np.asarray(found.gold_log_probs) * batch.mlm_mask[:, None]
  gold = gold.sum(-1, keepdims=True) if marginalise == "span" else gold
  marginal = np.asarray(found.marginal_gold_log_probs)
  assert (marginal <= gold.max(1) + 1e-5).all()
  assert (marginal >= gold.min(1) - 1e-5).all()


def test_the_order_of_given_candidates_is_kept():
  """Another order of blocks gives another order of the same numbers."""
  realm, params = tiny.realm(), tiny.params()
  batch, tokens = tiny.pretrain_batch(), on_device(tiny.blocks())
  rng = np.random.default_rng(7)
  ids = rng.permuted(np.tile(np.arange(30), (tiny.B, 1)), axis=1)[:, :4]
  ids[:, 0] = -1
  order = np.array([0, 3, 1, 2])
  given = jax.jit(realm.given)
  one = given(params, tokens, batch, ids)
  other = given(params, tokens, batch, ids[:, order])
  for name in ("candidate_log_probs", "gold_log_probs"):
    np.testing.assert_allclose(
      getattr(other, name), getattr(one, name)[:, order], rtol=1e-4, atol=1e-5
    )
  np.testing.assert_allclose(
    other.marginal_gold_log_probs, one.marginal_gold_log_probs, rtol=1e-4,
    atol=1e-5,
  )  # fmt: skip
  loss = objective.realm_loss(one.marginal_gold_log_probs, batch.mlm_mask)
  assert np.isfinite(loss) and loss > 0


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_embedder_gets_no_gradient(frozen):
  retrieval = tiny.realm(frozen=frozen).retrieval
  query = tiny.pretrain_batch().query

  def first_of_each(params):
    return retrieval.embed_query(params, query)[:, 0].sum()

  gradient = jax.jit(jax.grad(first_of_each))(tiny.params_of("embedder"))
  moved = [np.any(x) for x in jax.tree.leaves(gradient)]
  assert not any(moved) if frozen else all(moved)


@pytest.mark.nightly
def test_a_frozen_retriever_gets_no_gradient():
  """And the encoder's is what it is beside one that learns."""
  batch, tokens = tiny.pretrain_batch(), on_device(tiny.blocks())
  params = tiny.params_of("embedder", "encoder")

  def gradient(realm, params, *args):
    def loss(params):
      out = realm(params, *args, batch)
      return objective.realm_loss(out.marginal_gold_log_probs, batch.mlm_mask)

    return jax.grad(loss)(params)

  realms = tiny.realm(frozen=True), tiny.realm()
  frozen, learning = jax.jit(
    lambda *args: [gradient(realm, *args) for realm in realms]
  )(params, block_emb(), tokens)
  assert not any(np.any(x) for x in jax.tree.leaves(frozen["embedder"]))
  assert all(np.any(x) for x in jax.tree.leaves(learning["embedder"]))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    frozen["encoder"],
    learning["encoder"],
  )
