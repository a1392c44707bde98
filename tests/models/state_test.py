"""Names of tensors: the reference's, a plain BERT's, TensorFlow's."""

import functools
import re

import jax
import numpy as np
import pytest

from realm_jax.config import InputError, RealmConfig
from realm_jax.models import convert, foreign, whole_state
from realm_jax.models.embedder import RealmEmbedder, RealmScorer
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.models.open_qa import RealmForOpenQA
from realm_jax.models.reader import RealmReader

SIZES = RealmConfig(
  vocab_size=23,
  hidden_size=6,
  num_hidden_layers=2,
  num_attention_heads=3,
  intermediate_size=5,
  retriever_proj_size=4,
  max_position_embeddings=9,
  span_hidden_size=7,
  max_span_width=3,
)
PAIR = RealmScorer(SIZES, RealmEmbedder(SIZES))
MODULES = [
  RealmEmbedder(SIZES),
  RealmScorer(SIZES),
  PAIR,
  RealmKnowledgeAugEncoder(SIZES),
  RealmReader(SIZES),
  RealmForOpenQA(SIZES),
]
EMBEDDER, SCORER, _, ENCODER, READER, OPEN_QA = MODULES
WORDS = "embeddings.word_embeddings.weight"


def drawn(module, seed=0):
  """Params with no two numbers the same; nothing is compiled."""
  init = functools.partial(convert.fresh_params, module)
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: rng.standard_normal(x.shape).astype(np.float32),
    jax.eval_shape(init, jax.random.key(0)),
  )


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: type(m).__name__)
def test_names_go_both_ways(module):
  params = drawn(module)
  state = convert.to_torch_state(module, params)
  same(convert.from_torch_state(module, state), params)
  tied = convert.aliases(module)
  assert {k: v.shape for k, v in state.items() if k not in tied} == (
    convert.shapes(module)
  )
  assert not convert.shapes(module).keys() & convert.unread_shapes(module)


def test_tied_tensors_have_each_of_their_names():
  state = convert.to_torch_state(ENCODER, drawn(ENCODER))
  head = "cls.predictions"
  assert state[f"{head}.decoder.weight"] is state[f"realm.{WORDS}"]
  assert state[f"{head}.decoder.bias"] is state[f"{head}.bias"]
  state = convert.to_torch_state(SCORER, drawn(SCORER))
  name = "embedder.cls.dense.weight"
  assert state[f"query_{name}"] is state[name]
  state = convert.to_torch_state(PAIR, drawn(PAIR))
  assert not np.array_equal(state[f"query_{name}"], state[name])


def test_a_tree_of_another_module_is_refused():
  with pytest.raises(InputError, match="cls/dense/kernel"):
    convert.to_torch_state(ENCODER, drawn(READER))


def test_what_no_forward_reads_is_written_back_or_drawn():
  params = drawn(READER)
  unread = {"realm.pooler.dense.bias": np.arange(6, dtype=np.float32)}
  state = whole_state.whole_state(READER, params, unread)
  wanted = convert.shapes(READER) | convert.unread_shapes(READER)
  assert {k: v.shape for k, v in state.items()} == wanted
  same(state["realm.pooler.dense.bias"], unread["realm.pooler.dense.bias"])
  assert 0.01 < state["cls.predictions.decoder.weight"].std() < 0.03
  assert (state["cls.predictions.transform.LayerNorm.weight"] == 1).all()
  assert not any("decoder.bias" in name for name in state)  # a tied one
  read, kept, fresh = whole_state.read_state(READER, state)
  same(read, params)
  assert (kept.keys(), fresh) == (convert.unread_shapes(READER).keys(), ())


def test_faults_are_listed_by_name():
  state = convert.to_torch_state(EMBEDDER, drawn(EMBEDDER))
  del state["cls.dense.weight"], state["cls.LayerNorm.bias"]
  state["realm.pooler.dense.bias"] = np.zeros(7)
  state["cls.predictions.bias"] = np.zeros(22)
  state["classifier.weight"] = np.zeros(3)
  with pytest.raises(InputError) as e:
    whole_state.read_state(EMBEDDER, state)
  for said in (
    "missing: cls.dense.weight, cls.LayerNorm.bias;",
    "left over: classifier.weight;",
    "realm.pooler.dense.bias (7,), wanted (6,)",
    "cls.predictions.bias (22,), wanted (23,)",
  ):
    assert said in str(e.value)
  with pytest.raises(InputError) as e:
    whole_state.read_state(EMBEDDER, state, partial=True)
  assert "missing" not in str(e.value)
  with pytest.raises(InputError, match="none of it is this model's"):
    whole_state.read_state(EMBEDDER, {"a": np.zeros(1)}, partial=True)


def test_half_precision_is_read_as_float32():
  params = jax.tree.map(np.float16, drawn(EMBEDDER))
  state = convert.to_torch_state(EMBEDDER, params)
  read, _, _ = whole_state.read_state(EMBEDDER, state)
  assert {x.dtype for x in jax.tree.leaves(read)} == {np.dtype("float32")}
  same(read, params)


def test_an_untied_head_is_refused():
  module = RealmKnowledgeAugEncoder(
    RealmConfig(**SIZES.to_dict(), tie_word_embeddings=False)
  )
  state = convert.to_torch_state(module, drawn(module))
  whole_state.read_state(module, state)
  name = "cls.predictions.decoder.weight"
  state[name] = state[name] + 1
  with pytest.raises(InputError, match=f"{name} is not realm.{WORDS}"):
    whole_state.read_state(module, state)


@pytest.mark.parametrize("prefix", ["bert.", ""])
@pytest.mark.parametrize("module", [EMBEDDER, SCORER, ENCODER, OPEN_QA])
def test_a_plain_bert_is_the_body_of_each_model(module, prefix):
  body = convert.to_torch_state(EMBEDDER, drawn(EMBEDDER))
  bert = {
    prefix + name.removeprefix("realm."): value
    for name, value in body.items()
    if name.startswith("realm.")
  }
  if prefix:  # as files of before 2019 name it
    norm = f"{prefix}embeddings.LayerNorm"
    bert[f"{norm}.gamma"] = bert.pop(f"{norm}.weight")
    bert[f"{norm}.beta"] = bert.pop(f"{norm}.bias")
  bert["embeddings.position_ids"] = np.arange(9)
  state = foreign.reference_state(module, bert)
  named = {n for n in convert.shapes(module) if "realm." in n}
  unread = {n for n in convert.unread_shapes(module) if "pooler" in n}
  assert state.keys() == named | unread
  for name, value in state.items():
    same(value, body[f"realm.{name.partition('realm.')[2]}"])


def as_tensorflow(state, scopes):
  """The inverse of from_tensorflow, by the table of the original's names."""
  variables = {}
  for ours, value in state.items():
    inner, outer = next(pair for pair in scopes if ours.startswith(pair[0]))
    name = outer + ours.removeprefix(inner)
    norm = re.search("LayerNorm|layer_normalization", name)
    leaves = {"weight": "gamma", "bias": "beta"} if norm else {}
    table = "_embeddings.weight"
    for theirs, leaf in {
      table: "_embeddings",
      "predictions.bias": "predictions.output_bias",
      "weight": "kernel",
      **leaves,
    }.items():
      if name.endswith(theirs):
        name = name.removesuffix(theirs) + leaf
    name = name.replace("layer.", "layer_").replace(".", "/")
    variables[name] = value.T if name.endswith("kernel") else value
    variables[f"{name}/adam_m"] = np.zeros(1)
  return variables


OUTER = "module.module.module."
HUB = [  # ICT's embedder as it was published
  ("embedder.realm.", f"{OUTER}bert."),
  ("embedder.cls.", "module.module."),
]
TUNED = [  # the same under one scope more, in a fine-tuned checkpoint
  ("embedder.realm.", f"module.{OUTER}bert."),
  ("embedder.cls.", OUTER),
  ("reader.realm.", "reader.module.bert."),
  ("reader.qa_outputs.dense_intermediate", "reader.dense"),
  ("reader.qa_outputs.dense_output", "reader.dense_1"),
  ("reader.qa_outputs.layer_normalization", "reader.layer_normalization"),
]
BERT = [("realm.", "bert."), ("cls.", "cls.")]


def untied(module, params):
  state, tied = convert.to_torch_state(module, params), convert.aliases(module)
  return {k: v for k, v in state.items() if k not in tied}


def test_tensorflow_s_embedder():
  params = drawn(SCORER)
  variables = as_tensorflow(untied(SCORER, params), HUB)
  assert (
    f"{OUTER}bert.encoder.layer_1.output.LayerNorm.beta".replace(".", "/")
    in variables
  )
  assert variables["module/module/dense/kernel"].shape == (6, 4)
  state = foreign.from_tensorflow(SCORER, variables)
  same(whole_state.read_state(SCORER, state)[0], params)
  state = foreign.from_tensorflow(EMBEDDER, variables)
  same(whole_state.read_state(EMBEDDER, state)[0], params["embedder"])
  newer = {
    k.replace("module/LayerNorm", "module/layer_normalization"): v
    for k, v in variables.items()
  }
  assert newer.keys() != variables.keys()
  state = foreign.from_tensorflow(EMBEDDER, newer)
  same(whole_state.read_state(EMBEDDER, state)[0], params["embedder"])


def test_tensorflow_s_encoder():
  params = drawn(ENCODER)
  variables = as_tensorflow(untied(ENCODER, params), BERT)
  variables["global_step"] = np.int64(3)
  state = foreign.from_tensorflow(ENCODER, variables)
  same(whole_state.read_state(ENCODER, state)[0], params)


def test_tensorflow_s_fine_tuned_model():
  params = drawn(OPEN_QA)
  variables = as_tensorflow(untied(OPEN_QA, params), TUNED)
  variables["block_emb"] = block_emb = np.ones((8, 4))
  state = foreign.from_tensorflow(OPEN_QA, variables)
  assert state.pop("block_emb") is block_emb
  same(whole_state.read_state(OPEN_QA, state)[0], params)
  del variables["block_emb"]
  for module, part in ((READER, "reader"), (EMBEDDER, "embedder")):
    state = foreign.from_tensorflow(module, variables)
    same(whole_state.read_state(module, state)[0], params[part])


def test_tensorflow_s_pretrained_reader_is_the_encoder():
  embedder, encoder = drawn(SCORER), drawn(ENCODER)
  variables = as_tensorflow(untied(SCORER, embedder), HUB)
  variables |= as_tensorflow(untied(ENCODER, encoder), BERT)
  state = foreign.from_tensorflow(OPEN_QA, variables)
  same(
    state[f"reader.realm.{WORDS}"],
    encoder["realm"]["embeddings"]["word_embeddings"]["embedding"],
  )
  with pytest.raises(
    InputError, match=r"missing: reader\.qa_outputs.dense_int"
  ):
    whole_state.read_state(OPEN_QA, state)
