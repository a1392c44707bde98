"""Answers are what the models say, cut from the text; bad input is named."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.serve import predictor, run

ASKED = ["which Dutch painter lived in Delft", "river of Africa", "acorn"]


@pytest.fixture(scope="module")
def reader(demo):
  return predictor.Predictor(demo, batch_size=2)


def test_a_demo_folder_gives_its_fine_tuned_run(demo, reader):
  assert reader.run.workdir == demo / "finetune"
  assert reader.run.index_version == 4
  assert reader.run.step == 3
  assert reader.note == ""
  assert run.find_run(demo / "ict") == demo / "ict"


def test_answers_are_cut_from_their_block(reader):
  for answer in reader.answer(ASKED):
    (block,) = [e for e in answer.evidence if e.span]
    assert block.text[slice(*block.span)] == answer.text
    assert answer.text
    assert answer.score < 0
    assert len(answer.evidence) == 3  # reader_beam_size
    assert sum(e.p for e in answer.evidence) == pytest.approx(1, abs=1e-5)


def test_evidence_is_the_exact_search(reader):
  opened = reader.run
  for question, answer in zip(ASKED, reader.answer(ASKED), strict=True):
    inputs = reader.queries([question])
    query_emb = opened.retrieval.embed_query(opened.params, inputs)
    scores = np.asarray(opened.block_emb) @ np.asarray(query_emb)[0]
    best = np.argsort(-scores)[:3]
    assert {e.block_id for e in answer.evidence} == set(best.tolist())
    shares = [e.p for e in answer.evidence]
    assert shares == sorted(shares, reverse=True)


def test_the_batch_an_answer_is_in_changes_nothing(reader):
  together = reader.answer(ASKED)
  alone = [reader.answer([question])[0] for question in ASKED]
  assert [a.text for a in together] == [a.text for a in alone]
  np.testing.assert_allclose(
    [a.score for a in together], [a.score for a in alone], rtol=1e-5
  )


def test_a_pretrained_run_fills_in_masks(demo):
  filler = predictor.Predictor(demo / "pretrain", batch_size=2)
  assert "no QA reader" in filler.note
  (river,) = filler.run.tokenizer.encode("river")
  bias = filler.run.params["encoder"]["cls"]["bias"]
  words = jnp.array([river, filler.run.tokenizer.sep_id])
  bias = bias.at[words].set(jnp.array([1e3, 2e3]))
  filler.run.params["encoder"]["cls"]["bias"] = bias
  one, two = filler.answer(["a Dutch painter", "[MASK] [MASK] is a river"])
  assert (one.text, two.text) == ("river", "river river")  # no special
  assert two.score < one.score < 0
  ids = [e.block_id for e in one.evidence]
  assert len(ids) == 4 and ids.count(-1) == 1  # the null block is among them
  shares = [e.p for e in one.evidence]
  assert shares == sorted(shares, reverse=True)
  assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_an_ict_run_only_finds_blocks(demo):
  finder = predictor.Predictor(demo / "ict", batch_size=2)
  assert "only finds blocks" in finder.note
  (answer,) = finder.answer(["river of Africa"])
  assert answer.text == ""
  assert len(answer.evidence) == 5
  assert finder.run.index_version is None  # embedded when it was opened


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question(reader, question):
  with pytest.raises(InputError, match="question 2 is empty"):
    reader.answer(["x", question])


def test_no_question_is_no_answer(reader):
  assert reader.answer([]) == []


def test_no_run(tmp_path):
  with pytest.raises(InputError, match="no trained run here"):
    predictor.Predictor(tmp_path / "nowhere")


def test_a_moved_folder_still_finds_its_data(demo, tmp_path):
  moved = tmp_path / "moved"
  shutil.copytree(demo, moved)
  config = json.loads((moved / "finetune" / "config.json").read_text())
  config["data"]["dir"] = str(tmp_path / "gone")
  (moved / "finetune" / "config.json").write_text(json.dumps(config))
  assert len(run.open_run(moved).store) == 11
  shutil.rmtree(moved / "data")
  with pytest.raises(InputError, match=r"no prepared data in data\.dir="):
    run.open_run(moved)


def test_data_of_another_vocabulary_is_refused(demo, tmp_path):
  from realm_jax.data import blocks, tokenizer
  from realm_jax.data.articles import Article

  moved = tmp_path / "moved"
  shutil.copytree(demo / "finetune", moved / "finetune")
  other = tokenizer.train_wordpiece(["some other words"] * 3, 60)
  other.save(moved / "data" / "tokenizer")
  article = Article("1", "words", "some other words")
  blocks.write_block_store(moved / "data" / "blocks", [article], other, 32)
  (moved / "data" / "manifest.json").write_text("{}")
  config = json.loads((moved / "finetune" / "config.json").read_text())
  config["data"]["dir"] = str(moved / "data")
  (moved / "finetune" / "config.json").write_text(json.dumps(config))
  with pytest.raises(InputError, match=r"tokenizer_hash is .* but .*data has"):
    run.open_run(moved)
