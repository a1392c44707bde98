"""An explanation says what the predictor says, and why."""

import json

import jax
import numpy as np
import pytest

import realm_jax
from realm_jax.config import InputError
from realm_jax.retrieval import evidence
from realm_jax.serve import blocks, explain, predictor

ASKED = ["which Dutch painter lived in Delft", "river of Africa"]
MASKED = ["Oslo is a [MASK] city", "[MASK] [MASK] is a river"]
# Always two at a time: so many are the programs compiled for.


@pytest.fixture(scope="module")
def reader(demo):
  return explain.Explainer(demo, batch_size=2)


@pytest.fixture(scope="module")
def filler(demo):
  return explain.Explainer(demo / "pretrain", batch_size=2)


def test_a_reader_says_what_its_predictor_says(reader):
  answers = reader.predictor.answer(ASKED)
  for answer, x in zip(answers, reader.explain(ASKED), strict=True):
    assert (x.answer, x.how, x.run, x.step) == (
      answer.text,
      "read",
      "finetune",
      3,
    )
    assert x.p == pytest.approx(np.exp(answer.score), rel=1e-4)
    shown = [(b.block_id, b.title, b.text) for b in answer.evidence]
    assert [(b.block_id, b.title, b.text) for b in x.evidence] == shown
    shares = [b.p for b in x.evidence]
    np.testing.assert_allclose(
      shares, [b.p for b in answer.evidence], rtol=1e-4
    )
    (chosen,) = [b for b in x.evidence if b.chosen]
    assert chosen.answer == x.answer
    assert chosen.answer_p == pytest.approx(x.p)
    for block in x.evidence:  # each block's own span, cut from its text
      assert block.text[slice(*block.span)] == block.answer != ""
      assert block.answer_p <= x.p * (1 + 1e-6)


def test_the_index_and_its_age(reader):
  index = reader.explain(ASKED)[0].index
  assert (index.version, index.params_step, index.steps_behind) == (4, 2, 1)
  assert index.num_blocks == 11
  assert index.made > 1.5e9


def test_without_evidence_is_the_encoder_it_began_from(demo, reader):
  x = reader.explain(ASKED)[1]
  memory = predictor.Predictor(demo / "pretrain")
  num_masks = len(memory.run.tokenizer.encode(x.answer))
  masks = memory.run.config["max_masks"]
  batch = memory.masked(["", "river of Africa"], [1, min(num_masks, masks)])
  filled = evidence.fill(
    memory.run.realm, memory.run.params, None, memory.run.tokens,
    jax.device_put(batch),
  )  # fmt: skip
  _, answer = evidence.fill_answers(
    filled, [0, min(num_masks, masks)], memory.run.store, memory.run.tokenizer
  )
  assert x.without.answer == answer.text
  assert x.without.p == pytest.approx(np.exp(answer.score), rel=1e-4)


def test_an_encoder_marginalises_over_its_blocks(filler):
  answer = filler.predictor.answer(MASKED)[0]
  x = filler.explain(MASKED)[0]
  assert (x.answer, x.how, x.note) == (answer.text, "filled in", "")
  assert x.p == pytest.approx(np.exp(answer.score), rel=1e-4)
  (words,) = x.words
  assert len(words) == 5 and words[0].p == pytest.approx(x.p)
  assert [w.p for w in words] == sorted((w.p for w in words), reverse=True)
  # p(y | x) = sum over z of p(y | z, x) p(z | x)
  assert sum(b.p * b.p_of_answer for b in x.evidence) == pytest.approx(
    x.p, rel=1e-4
  )
  (null,) = [b for b in x.evidence if b.block_id < 0]
  assert (x.without.answer, x.without.p) == (null.answer, null.answer_p)
  assert words[0].p_without == pytest.approx(null.p_of_answer)
  assert all(b.answer_p >= b.p_of_answer for b in x.evidence)


def test_several_masks_and_a_question_without(filler):
  two, none = filler.explain([MASKED[1], "a Dutch painter"])
  assert len(two.words) == 2 and len(none.words) == 1
  assert two.p == pytest.approx(two.words[0][0].p * two.words[1][0].p, rel=1e-4)
  assert "“[MASK] : {question}”" in none.note


def test_one_question_fills_no_batch_and_three_fill_two(filler, monkeypatch):
  sizes = []
  explain_batch = filler._explain
  monkeypatch.setattr(
    filler,
    "_explain",
    lambda qs: sizes.append(len(qs)) or explain_batch(MASKED),
  )
  assert len(filler.explain(["x"])) == 1
  assert len(filler.explain(["x"] * 4)) == 4
  assert sizes == [1, 2, 2]


def test_explain_opens_a_run(monkeypatch):
  opened = []

  class Fake(explain.Explainer):
    def __init__(self, *args, **options):
      opened.append((args, options))

    def explain(self, questions):
      return [f"why {question}" for question in questions]

  monkeypatch.setattr(explain, "Explainer", Fake)
  assert realm_jax.explain("x", "DIR", "3") == "why x"
  assert opened == [(("DIR",), {"batch_size": 1, "index": "3"})]


def test_a_run_that_only_finds(demo):
  finder = explain.Explainer(demo / "ict", batch_size=2)
  x = finder.explain(["river of Africa", "acorn"])[0]
  assert (x.how, x.answer, x.p, x.without, x.words) == (
    "found",
    "",
    None,
    None,
    (),
  )
  assert x.index.version is None and len(x.evidence) == 5


def test_its_repr_fits_a_screen(reader, filler):
  for x in (*reader.explain(ASKED), *filler.explain(MASKED)):
    lines = repr(x).splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 78
    assert f"A {x.answer}" in repr(x)


def test_it_is_json(reader):
  x = reader.explain(ASKED)[0]
  assert (
    json.loads(json.dumps(x.to_json(), allow_nan=False))["run"] == "finetune"
  )


def test_what_cannot_be_asked(demo, filler):
  with pytest.raises(InputError, match="question 1 is empty"):
    filler.explain([" "])
  with pytest.raises(InputError, match="at most max_masks="):
    filler.explain(["[MASK] " * 9])
  with pytest.raises(InputError, match="is open already"):
    realm_jax.explain("x", filler, index="4")


@pytest.mark.parametrize(
  ("words", "text", "span"),
  [
    ("river", "The River is a river", (4, 9)),
    ("nil", "the Nile", None),
    ("a.b", "axb a.b", (4, 7)),
    ("", "x", None),
  ],
)
def test_find_words(words, text, span):
  assert blocks.find_words(words, text) == span


def test_the_repr_of_a_run_is_a_line(reader):
  said = repr(reader.predictor.run)
  assert said.endswith("step 3, embedder, reader, index 4 of 11 blocks)")
  assert "\n" not in said and len(said) < 300
