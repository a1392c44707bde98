"""What the reference's forwards refuse, ours refuse, with value and mend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realm_jax.config import InputError, RealmConfig
from realm_jax.models.embedder import RealmEmbedder, RealmScorer
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.open_qa import RealmForOpenQA
from realm_jax.models.reader import RealmReader

SIZES = RealmConfig(
  vocab_size=23,
  hidden_size=6,
  num_hidden_layers=1,
  num_attention_heads=3,
  intermediate_size=5,
  retriever_proj_size=4,
  max_position_embeddings=9,
  num_candidates=2,
  max_span_width=3,
  reader_beam_size=2,
)
IDS = np.arange(14).reshape(2, 7)
KEY = jax.random.key(0)


def blank(module, *args):
  """Params that are all 0."""
  shapes = jax.eval_shape(module.init, KEY, *args)
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


@pytest.fixture(scope="module")
def embed():
  module = RealmEmbedder(SIZES)
  variables = blank(module, IDS)
  return lambda *args, **kw: module.apply(variables, *args, **kw)


@pytest.mark.parametrize(
  ("given", "said"),
  [
    ({}, "exactly one of input_ids and inputs_embeds"),
    ({"input_ids": IDS, "inputs_embeds": np.ones((2, 7, 6))}, "exactly one"),
    ({"input_ids": IDS + 10}, "input_ids holds 23: wanted 0 to 22"),
    ({"input_ids": jnp.asarray(IDS) - 1}, "input_ids holds -1"),
    ({"input_ids": IDS, "token_type_ids": IDS}, "token_type_ids holds 2"),
    ({"input_ids": IDS, "position_ids": IDS}, "position_ids holds 9"),
    ({"input_ids": IDS.reshape(1, 14)}, "max_position_embeddings=9; cut them"),
    ({"input_ids": IDS[0]}, r"shape \(7,\): wanted \[rows, tokens\]"),
    ({"input_ids": IDS, "head_mask": np.ones(2)}, r"wanted \(3,\) \(heads\)"),
  ],
)
def test_embedder_refuses(embed, given, said):
  with pytest.raises(InputError, match=said):
    embed(**given)


def test_ids_are_checked_only_where_they_can_be_seen(embed):
  assert jax.eval_shape(embed, IDS + 10).projected_score.shape == (2, 4)


def test_a_pad_id_outside_the_vocabulary_fails_with_the_model():
  config = RealmConfig(**{**SIZES.to_dict(), "pad_token_id": 23})
  with pytest.raises(InputError, match="pad_token_id=23"):
    RealmEmbedder(config).init(KEY, IDS)


def refused(module, said, **given):
  with pytest.raises(InputError, match=said):
    jax.eval_shape(lambda: module.init(KEY, **given))


def test_scorer_refuses():
  module, candidates = RealmScorer(SIZES), np.ones((2, 3, 5), int)
  refused(module, "of the queries", candidate_input_ids=candidates)
  refused(module, "candidate_input_ids or", input_ids=IDS)
  refused(
    module,
    "6 candidates for 2 queries, but config num_candidates=2",
    input_ids=IDS,
    candidate_input_ids=candidates,
  )


def test_scorer_of_one_query_and_many_candidates():
  out, _ = jax.eval_shape(
    lambda: RealmScorer(SIZES).init_with_output(
      KEY, IDS[:1], candidate_input_ids=np.ones((3, 2, 5), int)
    )
  )
  shapes = [x.shape for x in out.to_tuple()]  # as the reference broadcasts
  assert shapes == [(3, 2), (1, 4), (3, 2, 4)]


def test_encoder_refuses():
  module = RealmKnowledgeAugEncoder(SIZES)
  joint, labels = np.ones((2, 2, 5), int), np.ones((2, 5), int)
  score = np.ones((2, 2))
  refused(module, "labels need relevance_score", input_ids=joint, labels=labels)
  given = {"input_ids": joint, "relevance_score": score}
  refused(module, "labels holds -1: wanted 0 to 22", labels=-labels, **given)
  given["input_ids"] = np.ones((2, 3, 5), int)
  refused(module, "num_candidates=2", labels=labels, **given)
  out, _ = jax.eval_shape(module.init_with_output, KEY, **given)
  assert out.logits.shape == (6, 5, 23)  # without labels any number will do


def test_reader_refuses():
  module = RealmReader(SIZES)
  given = {
    "input_ids": IDS,
    "token_type_ids": np.zeros_like(IDS),
    "relevance_score": np.ones(5),
    "block_mask": np.ones((5, 7)),
  }
  short = {k: given[k][:, :2] for k in ("input_ids", "token_type_ids")}
  refused(module, "2 tokens are shorter", **{**given, **short})
  one = {k: given[k][:1] for k in ("input_ids", "token_type_ids")}
  refused(module, "1 sequences and 2 block masks", **{**given, **one})


def test_open_qa_refuses():
  module = RealmForOpenQA(SIZES)
  variables = blank(module, IDS[:1])
  assert set(variables["params"]) == {"embedder", "reader"}
  with pytest.raises(InputError, match="give evidence"):
    module.apply(variables, IDS[:1])


def test_a_function_as_activation():
  config = RealmConfig(**{**SIZES.to_dict(), "hidden_act": jax.nn.relu})
  named = RealmConfig(**{**SIZES.to_dict(), "hidden_act": "relu"})
  texts = [
    str(
      jax.make_jaxpr(RealmEmbedder(c).apply)(blank(RealmEmbedder(c), IDS), IDS)
    )
    for c in (config, named)
  ]
  assert texts[0] == texts[1] and "max" in texts[0]
