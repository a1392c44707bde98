import json

import jax
import numpy as np
import pytest

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.data import batch_sources, input_pipeline, qa, text_writer
from realm_jax.data import tokenizer as tokenizers
from realm_jax.data.text_writer import Record

WORDS = ["Name" + "abcdefghijklmnopqrstuvwxyz"[i] for i in range(23)]


@pytest.fixture(scope="module")
def data_dir(tok, articles, tmp_path_factory):
  from realm_jax.data import blocks

  path = tmp_path_factory.mktemp("data")
  tok.save(path / "tokenizer")
  blocks.write_block_store(path / "blocks", articles, tok, 40)
  np.save(path / "held_out_sentences.npy", np.zeros(0, np.int64))
  for i, (split, words) in enumerate([("train", WORDS), ("dev", WORDS[:5])]):
    records = [
      Record(f"{w} saw the Moon", [(0, len(w), "e")], 1, 2, split)
      for w in words
    ] + [Record("In Rome", [(3, 7, "e")])] * (i == 1)
    text_writer.write_text_store(
      path / "text" / str(i), records, tok, source="x", hold_out=False
    )
  questions = [qa.Question(str(i), w, [w]) for i, w in enumerate(WORDS[:7])]
  qa.write_qa(path / "qa" / "dev.jsonl", questions)
  files.write_json(path / "manifest.json", {"num_texts": 2})
  return path


def pretrain(data_dir, weights=(1.0, 0.0), **kwargs):
  sizes = {"batch_size": 5, "query_len": 40, "max_masks": 30, "seed": 3}
  return input_pipeline.pretrain_batches(
    data_dir, weights=weights, **(sizes | kwargs)
  )


def ict(data_dir, **kwargs):
  sizes = {"batch_size": 2, "query_len": 9, "block_len": 31, "seed": 4}
  return input_pipeline.ict_batches(
    data_dir, mask_rate=0.5, min_sentence_len=1, **(sizes | kwargs)
  )


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("make", [pretrain, ict])
def test_state_goes_on_where_it_was(data_dir, make):
  batches = make(data_dir)
  seen = [next(batches) for _ in range(3)]
  state = json.loads(json.dumps(batches.get_state()))
  after = [next(batches) for _ in range(3)]
  again = make(data_dir)
  for batch in seen:
    assert_same(next(again), batch)
  resumed = make(data_dir)
  resumed.set_state(state)
  for batch in after:
    assert_same(next(resumed), batch)
  other = make(data_dir, seed=5)
  ids = [(x.example_ids != next(other).example_ids).any() for x in seen]
  assert any(ids)


def test_an_epoch_shows_all_once_in_a_new_order(data_dir):
  batches = pretrain(data_dir, batch_size=23)
  epochs = [next(batches).example_ids.tolist() for _ in range(3)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(23))
  assert epochs[0] != epochs[1] != epochs[2]


def test_batches_cross_epochs(data_dir):
  batches = pretrain(data_dir, batch_size=115)
  ids = np.concatenate([next(batches).example_ids for _ in range(20)])
  assert (np.bincount(ids, minlength=23) == 100).all()
  larger = next(pretrain(data_dir, batch_size=60)).example_ids
  assert (larger[:46].reshape(2, 23) == ids[:46].reshape(2, 23)).all()


@pytest.mark.parametrize("make", [pretrain, ict])
def test_processes_share_a_batch(data_dir, make):
  kwargs = {"batch_size": 6}
  if make is pretrain:
    kwargs["weights"] = (3.0, 1.0)
  whole = make(data_dir, **kwargs)
  parts = [
    make(data_dir, process_index=p, process_count=3, **kwargs) for p in range(3)
  ]
  for _ in range(4):
    rows = [next(part) for part in parts]
    joined = jax.tree.map(lambda *x: np.concatenate(x), *rows)
    assert_same(joined, next(whole))


def test_mixture_keeps_the_weights_at_every_row():
  weights = np.array([0.5, 0.3, 0.2])
  pattern = batch_sources.mixture(weights)
  counts = np.cumsum(pattern[:, None] == np.arange(3), axis=0)
  rows = np.arange(1, len(pattern) + 1)[:, None]
  assert np.abs(counts - rows * weights).max() < 1.5


def test_sources_are_told_apart(data_dir):
  batches = pretrain(data_dir, weights=(1.0, 1.0), batch_size=8)
  ids = np.concatenate([next(batches).example_ids for _ in range(6)])
  assert (ids >> 40 == 1).sum() == 24
  assert set(ids[ids >> 40 == 1] & ((1 << 40) - 1)) == {5}  # the one of train
  assert len(set(ids[ids >> 40 == 0])) == 23  # none twice in its first epoch


def test_a_new_span_and_sentence_may_come_every_epoch(data_dir):
  batches = ict(data_dir, batch_size=64)
  queries = {row.tobytes() for row in next(batches).query.input_ids}
  store = input_pipeline.load_blocks(data_dir)
  assert len(queries) > len(store)


def test_eval_shows_each_once_and_fills_up(data_dir):
  batches = list(
    input_pipeline.pretrain_eval_batches(
      data_dir, "dev", batch_size=3, query_len=40, max_masks=30
    )
  )
  ids = np.concatenate([b.example_ids for b in batches])
  assert ids.tolist() == [*((1 << 40) + np.arange(5)), -1]
  assert batches[0].query.input_ids.shape == batches[-1].query.input_ids.shape
  assert not batches[-1].mlm_mask[-1].any()
  none = input_pipeline.pretrain_eval_batches(
    data_dir, "test", batch_size=3, query_len=40, max_masks=30
  )
  assert list(none) == []


def test_questions(data_dir):
  sizes = {"query_len": 20, "max_answers": 2, "max_answer_len": 20}
  batches = list(
    input_pipeline.qa_eval_batches(data_dir, "dev", batch_size=4, **sizes)
  )
  ids = np.concatenate([b.example_ids for b in batches])
  assert ids.tolist() == [0, 1, 2, 3, 4, 5, 6, -1]
  endless = input_pipeline.qa_batches(
    data_dir, "dev", batch_size=7, seed=0, **sizes
  )
  for _ in range(3):
    assert sorted(next(endless).example_ids) == list(range(7))
  with pytest.raises(InputError, match=r"train\.jsonl: no such questions"):
    input_pipeline.qa_batches(data_dir, "train", batch_size=7, seed=0, **sizes)


def test_bad_values_are_named(data_dir):
  for kwargs, message in [
    ({"weights": (1.0,)}, "one weight for each"),
    ({"weights": (-1.0, 2.0)}, "weights >= 0"),
    ({"weights": (0.0, 0.0)}, "weights >= 0"),
    ({"batch_size": 5, "process_count": 2}, "multiple of the 2 processes"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"query_len": 3}, "make query_len larger"),
  ]:
    with pytest.raises(InputError, match=message):
      pretrain(data_dir, **kwargs)


def test_a_vocabulary_of_other_blocks_is_refused(tok, articles, tmp_path):
  from realm_jax.data import blocks

  blocks.write_block_store(tmp_path / "blocks", articles, tok, 40)
  tokenizers.train_wordpiece(["other words"], 60).save(tmp_path / "tokenizer")
  with pytest.raises(InputError, match="prepare the data again"):
    input_pipeline.load_blocks(tmp_path)
