"""open_qa equals the reference: answers, losses, gradients; one and many."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from realm_jax.config import InputError
from realm_jax.models import convert
from realm_jax.models.reader import span_candidates
from realm_jax.pretrained import find_evidence, load_pretrained, open_qa

OTHER = "what is the capital of the river"


@pytest.fixture(scope="module")
def io(reference):
  return dict(np.load(reference / "openqa" / "io.npz"))


@pytest.fixture(scope="module")
def asked(openqa, io):
  """(question, answer ids) of the reference's call."""
  question = openqa.tokenizer([str(io["question"])])
  answers = [str(a) for a in io["answers"]]
  ids = openqa.tokenizer(answers, add_special_tokens=False)["input_ids"]
  return question, ids


def close(got, want, tol=5e-5):
  scale = max(1e-6, np.abs(want).max(initial=0))
  np.testing.assert_allclose(got / scale, want / scale, rtol=0, atol=tol)


def test_training_finds_more_blocks_and_has_losses(openqa, asked, io):
  out = open_qa(openqa, *asked, train=True)
  for name in ("loss", "retriever_loss", "reader_loss"):
    value = getattr(out.reader_output, name)
    assert value.shape == ()
    close(value, io[name])
  ids = out.predicted_answer_ids
  np.testing.assert_array_equal(ids, io["train_predicted_answer_ids"])
  assert out.reader_output.retriever_correct.shape == (6,)


def test_asking_reads_what_it_finds(openqa, asked, io):
  out = open_qa(openqa, asked[0])
  ids = out.predicted_answer_ids
  np.testing.assert_array_equal(ids, io["eval_predicted_answer_ids"])
  read = out.reader_output
  for name in ("block_idx", "start_pos", "end_pos"):
    assert getattr(read, name) == io[name]
  assert read.loss is None and read.retriever_correct is None


def test_outputs_are_of_the_length_that_the_texts_have(asked, reference):
  model = load_pretrained(reference / "openqa", reader_seq_len=60)
  length = find_evidence(model, asked[0]).joint.input_ids.shape[-1]
  assert length < 60
  read = open_qa(model, *asked).reader_output
  starts, ends = span_candidates(length, model.config.max_span_width)
  assert read.reader_correct.shape == (3, len(starts))
  assert starts[read.candidate] == read.start_pos
  assert ends[read.candidate] == read.end_pos
  assert read.end_pos > read.start_pos  # of a width whose number shifts


def test_gradients(openqa, asked, io):
  evidence = find_evidence(openqa, *asked, train=True)

  @jax.jit
  @jax.grad
  def grad(params):
    out = openqa.module.apply(
      {"params": params}, io["input_ids"], evidence=evidence
    )
    return out.reader_output.loss

  got = convert.to_torch_state(openqa.module, grad(openqa.params))
  want = {k.removeprefix("grad/"): v for k, v in io.items() if "grad/" in k}
  scale = max(np.abs(v).max() for v in want.values())
  compared = [k for k, v in want.items() if np.abs(v).max() > 1e-5 * scale]
  assert any("embedder.cls" in k for k in compared)
  assert any("reader.qa_outputs" in k for k in compared)
  for name in compared:
    gradient = np.array(got[name])
    if name.endswith("word_embeddings.weight"):
      gradient[0] = want[name][0]  # torch drops the lookups of padding
    close(gradient, want[name], 3e-4)


def test_many_questions_are_each_of_them(openqa, asked, io):
  one, answers = asked
  other = openqa.tokenizer([OTHER])
  nothing = [[7]]  # "in" stands in no answer of theirs
  both = openqa.tokenizer([str(io["question"]), OTHER], padding=True)
  many = open_qa(openqa, both, [answers, nothing], train=True)
  alone = [
    open_qa(openqa, one, answers, train=True),
    open_qa(openqa, other, [nothing], train=True),  # a list of one, also
  ]
  read = many.reader_output
  for name in ("loss", "retriever_loss", "reader_loss"):
    value = getattr(read, name)
    assert value.shape == ()
    close(value, np.mean([getattr(a.reader_output, name) for a in alone]))
  for i, a in enumerate(alone):
    for name in ("block_idx", "start_pos", "end_pos", "retriever_correct"):
      want = getattr(a.reader_output, name)
      np.testing.assert_array_equal(getattr(read, name)[i], want)
    ids = many.predicted_answer_ids[i]
    np.testing.assert_array_equal(ids[ids >= 0], a.predicted_answer_ids)
  assert many.predicted_answer_ids.shape == (2, openqa.config.max_span_width)


def test_an_index_over_a_mesh(openqa, asked):
  mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
  rows = NamedSharding(mesh, PartitionSpec("data"))
  sharded = dataclasses.replace(
    openqa, block_emb=jax.device_put(openqa.block_emb, rows)
  )
  one, over = (
    find_evidence(openqa, asked[0]),
    find_evidence(sharded, asked[0], mesh=mesh),
  )
  np.testing.assert_array_equal(one.block_ids, over.block_ids)
  close(over.block_emb, one.block_emb, 1e-6)


@pytest.mark.parametrize(
  ("question", "said"),
  [
    ({"ids": [[2, 3]]}, "no input_ids"),
    ({"input_ids": [2, 3]}, "wanted one, \\[B, T\\]"),
    ({"input_ids": [[2, 3], [2]]}, "padding=True"),
    ({"input_ids": [[2, 3]], "attention_mask": [[1]]}, "wanted one"),
  ],
)
def test_a_question_must_be_a_batch(openqa, question, said):
  with pytest.raises(InputError, match=said):
    open_qa(openqa, question)


def test_parts_that_are_missing_or_do_not_fit(openqa, asked, reference):
  for lack in ({"retriever": None}, {"block_emb": None}):
    with pytest.raises(InputError, match="which this model lacks"):
      open_qa(dataclasses.replace(openqa, **lack), asked[0])
  with pytest.raises(InputError, match="RealmReader: wanted a RealmForOpenQA"):
    open_qa(load_pretrained(reference / "reader"), asked[0])
  few = dataclasses.replace(openqa, block_emb=openqa.block_emb[:5])
  with pytest.raises(InputError, match="searcher_beam_size=6, but the index"):
    open_qa(few, asked[0], train=True)
  both = openqa.tokenizer([OTHER, OTHER])
  with pytest.raises(InputError, match="answer_ids of 1 questions"):
    open_qa(openqa, both, [[[7]]])
