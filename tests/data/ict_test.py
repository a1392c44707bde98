import itertools

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.data import features, ict


def make(store, tok, **kwargs):
  sizes = {"query_len": 9, "block_len": 34, "mask_rate": 0.7}
  return ict.IctExamples(store, tok, **(sizes | kwargs))


def sentences(store, block):
  body = store.body_ids(block).tolist()
  starts = [*store.sentence_starts(block), len(body)]
  return body, list(itertools.pairwise(starts))


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("stays", [False, True])
def test_against_one_by_one(store, tok, stays, hides):
  examples = make(store, tok, min_sentence_len=1, hide_title=0.4)
  hidden = 0
  n = len(store)
  assert len(examples) == n
  draws = np.random.default_rng(1).random(7)
  for draw in draws:
    uniform = np.tile([draw, 0.69 + 0.02 * stays, 0.41 - 0.02 * hides], (n, 1))
    batch = examples.rows(np.arange(n), uniform)
    for block in range(n):
      body, ranges = sentences(store, block)
      a, b = ranges[int(draw * len(ranges))]
      title = store.title_ids(block).tolist()
      shown = [tok.mask_id if hides and i in title else i for i in body[a:b]]
      hidden += shown.count(tok.mask_id)
      query = features.query_inputs([shown], 9, tok)
      assert (batch.query.input_ids[block] == query.input_ids[0]).all()
      if not stays and len(ranges) > 1:
        body = body[:a] + body[b:]
      expected = features.block_inputs([title], [body], 34, tok)
      assert (batch.block.input_ids[block] == expected.input_ids[0]).all()
      segments = expected.token_type_ids[0]
      assert (batch.block.token_type_ids[block] == segments).all()
      assert batch.example_ids[block] == block
  assert bool(hidden) == hides


def test_short_held_out_and_single_sentences(store, tok):
  block, _, length = store.sentence_table()
  longest = int(length.max())
  examples = make(store, tok, min_sentence_len=longest)
  assert len(examples) == len(set(block[length == longest].tolist()))
  single = [b for b in range(len(store)) if len(store.sentences(b)) == 1]
  assert single
  dropped = make(store, tok, min_sentence_len=1, keep_single=False)
  assert len(dropped) == len(store) - len(single)
  skip = np.flatnonzero(block == 0)
  held_out = make(store, tok, min_sentence_len=1, skip=skip)
  ids = held_out.rows(np.arange(len(held_out)), np.zeros((len(held_out), 3)))
  assert ids.example_ids.tolist() == list(range(1, len(store)))


def test_bad_values_are_named(store, tok):
  with pytest.raises(InputError, match=r"mask_rate=1\.5"):
    make(store, tok, mask_rate=1.5)
  with pytest.raises(InputError, match="no sentence of the"):
    make(store, tok, min_sentence_len=1000)
