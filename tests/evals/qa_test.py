"""QA scores on a tiny run whose right answers are made to be known."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data import features
from realm_jax.data import qa as qa_files
from realm_jax.evals import baselines, qa
from realm_jax.retrieval import weighing
from realm_jax.retrieval.evidence import Answer
from realm_jax.serve import predictor, run


@pytest.fixture(scope="module")
def reader(demo):
  return predictor.Predictor(demo, batch_size=3)


@pytest.fixture(scope="module")
def questions(demo):
  return qa_files.read_qa(demo / "questions.jsonl")


def _evaluate(opened, questions, **options):
  return qa.evaluate_reader(
    opened.open_qa,
    opened.params,
    opened.block_emb,
    options.pop("tokens", opened.tokens),
    questions,
    opened.store,
    opened.tokenizer,
    query_len=opened.config["query_len"],
    batch_size=4,
    **options,
  )


def _read(opened, questions):
  """Blocks read [B, K], and block, start and end of each predicted span."""
  ids = opened.tokenizer.encode_batch([q.question for q in questions])
  inputs = features.query_inputs(ids, 24, opened.tokenizer)
  found = weighing.read_each(
    opened.open_qa, opened.params, opened.block_emb, opened.tokens, inputs, 3
  ).reading
  rows = zip(
    *map(np.asarray, (found.block_ids, found.block, found.start, found.end)),
    strict=True,
  )
  return [(ids, ids[slot], start, end) for ids, slot, start, end in rows]


def test_answers_are_scored_as_text_and_as_wordpieces(reader, questions):
  opened = reader.run
  given = [a.text for a in reader.answer([q.question for q in questions])]
  known = [
    q._replace(answers=["no such answer", text] if i % 2 else ["nothing"])
    for i, (q, text) in enumerate(zip(questions, given, strict=True))
  ]
  scores = _evaluate(opened, known)
  assert [p.prediction for p in scores.predictions] == given
  assert scores.columns["exact_match"].tolist() == [0, 1, 0, 1, 0]
  for b, (read, block, start, end) in enumerate(_read(opened, known)):
    answers = opened.tokenizer.encode_batch(known[b].answers)
    span = opened.store.body_ids(block)[start : end + 1].tolist()
    bodies = [opened.store.body_ids(block).tolist() for block in read]
    oracle = any(
      body[t : t + len(answer)] == answer
      for answer in answers for body in bodies for t in range(len(body))
    )  # fmt: skip
    assert scores.columns["index_match"][b] == (span in answers)
    assert scores.columns["reader_oracle"][b] == oracle
  summary = dict(scores.summary())
  assert summary["exact_match"] == 0.4
  assert summary["exact_match_se"] == pytest.approx(np.sqrt(0.3 / 5))


def test_recall_is_that_of_the_search(reader, questions):
  opened = reader.run
  found = qa.find_blocks(
    opened.retrieval,
    opened.params,
    opened.block_emb,
    [q.question for q in questions],
    opened.tokenizer,
    query_len=opened.config["query_len"],
    batch_size=2,
  )
  assert (np.diff(found.scores[:, :11]) <= 0).all()
  found = found.ids
  assert found.shape == (5, 20)
  assert (np.sort(found[:, :11], axis=1) == np.arange(11)).all()
  assert (found[:, 11:] == -1).all()  # there are no more blocks
  columns = qa.score_found(found, questions, opened.store)
  gold = [3, 10, 9, None, 99]
  for k in (1, 5, 20):
    slow = [g in found[b, :k] for b, g in enumerate(gold)]
    ours = columns[f"recall_{k}"]
    assert np.isnan(ours[3])  # it names no article
    assert ours[[0, 1, 2, 4]].tolist() == [slow[b] for b in (0, 1, 2, 4)]
    texts = [[opened.store.text(b) for b in row[:k] if b >= 0] for row in found]
    has = [any(a in t for a in q.answers for t in texts[b])
           for b, q in enumerate(questions)]  # fmt: skip
    assert columns[f"answer_recall_{k}"].tolist() == has


def test_oracle_sees_only_the_blocks_read(reader, questions):
  """An answer in a block that was found but not read is out of reach."""
  opened = reader.run
  ((read, *_),) = _read(opened, questions[:1])
  bodies = [opened.store.body_ids(block).tolist() for block in range(11)]
  outside = next(b for b in range(11) if b not in read[:3])
  for block, expected in ((read[2], 1), (outside, 0)):
    others = {i for b, body in enumerate(bodies) if b != block for i in body}
    only_here = next(
      word
      for word in opened.store.text(block).split()
      if len(ids := opened.tokenizer.encode(word)) < 5 and not others & set(ids)
    )
    question = questions[0]._replace(answers=[only_here])
    scores = _evaluate(opened, [question])
    assert scores.columns["reader_oracle"].tolist() == [expected]


def test_shuffled_blocks_answer_from_other_text(reader, questions):
  opened = reader.run
  shuffled, tokens, text_of = baselines.shuffle_blocks(
    opened.open_qa, opened.tokens
  )
  assert sorted(text_of) == list(range(11))
  assert (text_of != np.arange(11)).all()
  for block in range(11):
    ours = np.asarray(tokens.token_ids[block])
    theirs = np.asarray(opened.tokens.token_ids[text_of[block]])
    np.testing.assert_array_equal(ours, theirs)
  honest = _evaluate(opened, questions)
  scores = qa.evaluate_reader(
    shuffled, opened.params, opened.block_emb, tokens, questions,
    opened.store, opened.tokenizer, query_len=24, text_of=text_of,
  )  # fmt: skip
  for real, other in zip(honest.predictions, scores.predictions, strict=True):
    read = {text_of[e["block_id"]] for e in real.evidence}
    assert {e["block_id"] for e in other.evidence} == read
    (block,) = [e for e in other.evidence if e["span"]]
    assert block["text"][slice(*block["span"])] == other.prediction


def test_evaluator_is_the_evaluation(reader, questions):
  opened = reader.run
  evaluate = qa.make_evaluator(
    opened.open_qa, opened.tokens, questions, opened.store, opened.tokenizer,
    query_len=24, batch_size=4,
  )  # fmt: skip
  state = types.SimpleNamespace(params=opened.params)
  index = types.SimpleNamespace(block_emb=opened.block_emb)
  with jax.transfer_guard("disallow"):
    pairs = evaluate(state, index)
  figures = dict(pairs)
  assert {"recall_5", "answer_recall_20"} <= figures.keys()
  for name, value in _evaluate(opened, questions).summary():
    assert figures[name] == pytest.approx(value, nan_ok=True)


def test_regex_answers(reader, questions):
  """By wordpieces they are judged where it's known what they match."""
  opened = reader.run
  ((read, *_),) = _read(opened, questions[:1])
  there = opened.store.text(read[0]).split()[0]
  patterns = [
    q._replace(answers=["."], regex=True, spans=spans)
    for q, spans in zip(questions, [(there,), (), (), ("zz",), ()], strict=True)
  ]
  scores = _evaluate(opened, patterns)
  assert scores.columns["exact_match"].tolist() == [1] * 5
  assert dict(scores.summary()).keys() >= {"exact_match", "reader_oracle"}
  assert "f1" not in dict(scores.summary())
  nan = pytest.approx(np.nan, nan_ok=True)
  assert scores.columns["reader_oracle"].tolist() == [1, nan, nan, 0, nan]


def test_bm25_answers_with_the_title(reader, questions):
  store = reader.run.store
  scores = baselines.evaluate_bm25(baselines.make_bm25(store), questions, store)
  given = [p.prediction for p in scores.predictions]
  assert given == ["Vermeer", "Oak", "Nile", "Ada", ""]
  assert scores.columns["exact_match"].tolist() == [1, 0, 1, 0, 0]
  assert scores.columns["f1"].tolist() == pytest.approx([1, 0, 1, 2 / 3, 0])
  assert scores.columns["recall_1"].tolist()[:3] == [1, 1, 1]
  assert scores.columns["recall_20"].tolist()[4] == 0
  assert scores.predictions[0].evidence[0]["p"] is None


def _closed_book(opened, questions, **options):
  return baselines.evaluate_fill_in(
    opened.realm, opened.params, options.pop("block_emb", None),
    opened.tokens, questions, opened.store, opened.tokenizer,
    query_len=opened.config["query_len"],
    max_masks=opened.config["max_masks"],
    template=opened.config["mask_template"],
    batch_size=2,
    **options,
  )  # fmt: skip


@pytest.fixture(scope="module")
def parrot(demo):
  """A pre-trained run whose encoder only ever says "river"."""
  opened = run.open_run(demo / "pretrain")
  (river,) = opened.tokenizer.encode("river")
  params = jax.tree.map(np.array, opened.params)
  params["encoder"]["cls"]["bias"][river] = 1e3
  return dataclasses.replace(opened, params=params)


@pytest.mark.parametrize(
  ("answers", "said", "right"),
  [
    (["river"], "river", 1),
    (["a lake", "River, river!"], "river river river river", 0),
    (["a lake", "river river"], "river river", 1),  # 2 masks for both
    (["river", "lake of river"], "river", 1),  # any right filling counts
    (["one two three four five six"], "", 0),  # more than max_masks
  ],
)
def test_closed_book_is_told_the_answers_length(
  parrot, questions, answers, said, right
):
  scores = _closed_book(parrot, [questions[0]._replace(answers=answers)])
  assert scores.columns["exact_match"].tolist() == [right]
  (given,) = scores.predictions
  if right or not said:
    assert given.prediction == said
  assert [e["block_id"] for e in given.evidence] == ([-1] if said else [])


def test_fill_in_with_an_index_has_evidence(parrot, questions):
  scores = _closed_book(parrot, questions, block_emb=parrot.block_emb)
  for given in scores.predictions:
    assert set(given.prediction.split()) == {"river"}
    assert len(given.evidence) == 4  # num_candidates
  regex = _closed_book(parrot, [q._replace(regex=True) for q in questions])
  assert [len(p.prediction.split()) for p in regex.predictions] == [1] * 5


def test_closed_book_sees_no_block(demo, questions):
  opened = run.open_run(demo / "pretrain")
  blank = jax.tree.map(np.zeros_like, opened.tokens)
  other = dataclasses.replace(opened, tokens=blank)
  ours = [p.prediction for p in _closed_book(opened, questions).predictions]
  assert ours == [
    p.prediction for p in _closed_book(other, questions).predictions
  ]


def test_score_answers_by_hand(questions):
  answers = [
    Answer("johannes vermeer!", -1.0, ()),
    Answer("", float("nan"), ()),
  ]
  scores = qa.score_answers(questions[:2], answers)
  assert scores.columns["exact_match"].tolist() == [1, 0]
  assert [p.score for p in scores.predictions] == [-1.0, None]


def test_chunks_fill_up():
  rows = list(qa.chunks(5, 3))
  assert [r.tolist() for r in rows] == [[0, 1, 2], [3, 4, -1]]
  assert list(qa.chunks(0, 3)) == []


def test_bad_line_is_named(tmp_path):
  path = tmp_path / "qa.jsonl"
  path.write_text('{"question": "x", "answer": ["y"]}\n{"question": "z"}\n')
  with pytest.raises(InputError, match=r"qa.jsonl:2"):
    qa_files.read_qa(path)
