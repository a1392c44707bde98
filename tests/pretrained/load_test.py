"""load_pretrained: what is in a directory, and what is wrong with it."""

import json
import sys

import jax
import numpy as np
import pytest

from realm_jax.config import InputError, RealmConfig
from realm_jax.formats import safetensors, tf_checkpoint
from realm_jax.models import convert
from realm_jax.models.embedder import RealmEmbedder, RealmScorer
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.pretrained import Pretrained, load_pretrained, show

SIZES = RealmConfig(
  vocab_size=23,
  hidden_size=6,
  num_hidden_layers=1,
  num_attention_heads=3,
  intermediate_size=5,
  retriever_proj_size=4,
  max_position_embeddings=9,
  max_span_width=3,
)


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def write(tmp_path):
  """write(state, **keys of config.json) -> the directory."""

  def call(state, **more):
    values = json.loads(SIZES.to_json_string()) | more
    (tmp_path / "config.json").write_text(json.dumps(values))
    state = {k: np.ascontiguousarray(v) for k, v in state.items()}
    safetensors.write_tensors(tmp_path / "model.safetensors", state)
    return tmp_path

  return call


def test_all_that_a_directory_has(openqa, reference):
  state = safetensors.read_tensors(reference / "openqa" / "model.safetensors")
  assert type(openqa.module).__name__ == "RealmForOpenQA"
  assert openqa.config.architectures == ["RealmForOpenQA"]
  same(openqa.block_emb, state["block_emb"])
  kept = convert.to_torch_state(openqa.module, openqa.params)
  kept |= openqa.unread
  assert set(state) - {"block_emb"} == set(kept)
  same({k: kept[k] for k in state if k != "block_emb"}, {
    k: v for k, v in state.items() if k != "block_emb"
  })  # fmt: skip
  assert len(openqa.retriever.block_records) == len(openqa.block_emb) == 24
  assert openqa.tokenizer("the city")["input_ids"] == [2, 5, 18, 3]
  assert openqa.fresh == ()


def test_what_a_directory_has_not_is_none(reference):
  model = load_pretrained(reference / "encoder")
  assert isinstance(model.module, RealmKnowledgeAugEncoder)
  assert (model.tokenizer, model.retriever, model.block_emb) == (None,) * 3
  assert set(model.unread) == {
    "realm.pooler.dense.weight",
    "realm.pooler.dense.bias",
  }


def test_overrides_are_keys_of_a_config(reference):
  model = load_pretrained(
    reference / "scorer", num_candidates=2, output_attentions=True
  )
  assert model.module.config.num_candidates == 2 == model.config.num_candidates
  assert model.config.output_attentions
  with pytest.raises(InputError, match="nearest: num_candidates"):
    load_pretrained(reference / "scorer", num_candidate=2)


def test_the_kind_is_named_by_file_or_caller(write, drawn):
  state = convert.to_torch_state(
    RealmEmbedder(SIZES), drawn(RealmEmbedder(SIZES)).params
  )
  path = write(state)
  with pytest.raises(InputError, match="architectures=None: wanted one of"):
    load_pretrained(path)
  for kind in ("embedder", "RealmEmbedder"):
    model = load_pretrained(path, kind=kind)
    assert isinstance(model.module, RealmEmbedder)
  with pytest.raises(InputError, match="kind='bert': wanted one of embedder"):
    load_pretrained(path, kind="bert")
  path = write(state, architectures=["BertModel"])
  with pytest.raises(InputError, match=r"BertModel.*also partial=True"):
    load_pretrained(path)


def test_faults_are_named_with_the_file(write, drawn, reference):
  model = drawn(RealmEmbedder(SIZES))
  state = convert.to_torch_state(model.module, model.params)
  del state["cls.dense.bias"]
  path = write(state, architectures=["RealmEmbedder"])
  with pytest.raises(InputError, match=r"missing: cls\.dense\.bias: give") as e:
    load_pretrained(path)
  assert str(e.value).startswith(str(path))
  with pytest.raises(InputError, match=r"word_embeddings\.weight \(99, 32\)"):
    load_pretrained(reference / "reader", vocab_size=98)
  with pytest.raises(InputError, match=r"\(24, 16\), wanted \(25, 16\)"):
    load_pretrained(reference / "openqa", num_block_records=25)


def test_what_is_missing_is_drawn_where_that_is_asked_for(write, drawn):
  model = drawn(RealmEmbedder(SIZES))
  state = convert.to_torch_state(model.module, model.params)
  taken = {
    "cls.dense.weight",
    "realm.encoder.layer.0.attention.self.key.weight",
  }
  state = {k: v for k, v in state.items() if k not in taken}
  path = write(state, architectures=["RealmEmbedder"])
  first, again, other = (
    load_pretrained(path, partial=True, seed=seed) for seed in (3, 3, 4)
  )
  assert set(first.fresh) == taken
  same(first.params, again.params)
  first, other = (
    convert.to_torch_state(m.module, m.params) for m in (first, other)
  )
  for name, value in state.items():
    same(first[name], value)
  for name in taken:
    assert 0.01 < first[name].std() < 0.03  # as config.initializer_range says
    assert not np.array_equal(first[name], other[name])


def test_a_plain_bert_is_a_warm_start(write, drawn):
  model = drawn(RealmKnowledgeAugEncoder(SIZES))
  state = convert.to_torch_state(model.module, model.params)
  bert = {k.replace("realm.", "bert."): v for k, v in state.items()}
  bert["cls.seq_relationship.bias"] = np.zeros(2, np.float32)
  path = write(bert, architectures=["BertForPreTraining"], model_type="bert")
  with pytest.raises(InputError, match=r"left over: cls\.seq_relationship"):
    load_pretrained(path, kind="encoder")
  encoder = load_pretrained(path, kind="encoder", partial=True)
  same(encoder.params, model.params)
  embedder = load_pretrained(path, kind="embedder", partial=True)
  same(embedder.params["realm"], model.params["realm"])
  assert "cls.dense.weight" in embedder.fresh
  assert not any("encoder.layer" in name for name in embedder.fresh)


def test_a_scorer_s_query_embedder_is_its_embedder_or_another(write, drawn):
  pair = drawn(RealmScorer(SIZES, RealmEmbedder(SIZES)))
  state = convert.to_torch_state(pair.module, pair.params)
  model = load_pretrained(write(state, architectures=["RealmScorer"]))
  assert model.module == RealmScorer(model.config, RealmEmbedder(model.config))
  same(model.params, pair.params)
  one = drawn(RealmScorer(SIZES))
  state = convert.to_torch_state(one.module, one.params)  # under both names
  model = load_pretrained(write(state, architectures=["RealmScorer"]))
  assert model.module == RealmScorer(model.config)
  same(model.params, one.params)


def test_a_checkpoint_of_tensorflow_needs_its_kind(
  tmp_path, drawn, monkeypatch
):
  model = drawn(RealmKnowledgeAugEncoder(SIZES))
  state = convert.to_torch_state(model.module, model.params)
  tied = convert.aliases(model.module)
  variables = {}
  for ours, value in state.items():
    if ours in tied:
      continue
    name = ours.replace("realm.", "bert.").replace("layer.", "layer_")
    name = name.replace("predictions.bias", "predictions.output_bias")
    name = name.replace("_embeddings.weight", "_embeddings").replace(".", "/")
    if name.endswith("weight") and value.ndim == 2:
      variables[name.removesuffix("weight") + "kernel"] = value.T
    else:
      variables[name.replace("/weight", "/gamma")] = value
  (tmp_path / "model.ckpt-7.index").touch()
  monkeypatch.setattr(tf_checkpoint, "read_variables", lambda _: variables)
  path = tmp_path / "model.ckpt-7"
  with pytest.raises(InputError, match="name the kind: embedder, scorer"):
    load_pretrained(path)
  sizes = {k: v for k, v in SIZES.to_dict().items() if k != "model_type"}
  read = load_pretrained(path, kind="encoder", **sizes)
  same(read.params, model.params)


def test_where_there_is_no_model(tmp_path):
  with pytest.raises(InputError, match="nowhere: no such directory"):
    load_pretrained(tmp_path / "nowhere")
  with pytest.raises(InputError, match=r"config\.json: no such file"):
    load_pretrained(tmp_path)
  SIZES.save_pretrained(tmp_path)
  with pytest.raises(InputError, match=r"none of model\.safetensors, "):
    load_pretrained(tmp_path, kind="reader")


def test_its_repr_fits_a_screen_and_a_notebook_shows_the_params():
  params = {"bert": {"kernel": np.ones((5, 7))}, "norm": {"bias": np.ones(3)}}
  fresh = tuple(f"cls.predictions.weight{i}" for i in range(9))
  loaded = Pretrained(SIZES, RealmEmbedder(SIZES), params, fresh=fresh)
  lines = repr(loaded).splitlines()
  assert lines[0] == "RealmEmbedder: 38 parameters in 2 arrays"
  assert "bert 35, norm 3" in repr(loaded)
  assert "tokenizer: none; retriever: none; index: none" in repr(loaded)
  assert "drawn, not read: 9" in lines[-1]
  assert len(lines) <= 6 and max(map(len, lines)) <= 78
  page = loaded._repr_html_()
  assert page.lstrip().startswith("<") and "treescope" in page


def test_without_treescope_a_notebook_shows_the_words(monkeypatch):
  monkeypatch.setitem(sys.modules, "treescope", None)
  assert show.as_html({"kernel": np.ones(3)}) is None
