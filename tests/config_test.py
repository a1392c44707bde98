"""RealmConfig: the reference's fields, files and manners."""

import dataclasses
import json
import pathlib

import pytest

from realm_jax.config import InputError, RealmConfig

REFERENCE = pathlib.Path(__file__).parent / "testdata" / "reference"


def test_a_file_of_the_reference_is_written_back_as_it_was(tmp_path):
  text = (REFERENCE / "scorer" / "config.json").read_text()
  config = RealmConfig.from_pretrained(REFERENCE / "scorer")
  config.save_pretrained(tmp_path / "new")
  assert (tmp_path / "new" / "config.json").read_text() == text
  assert [p.name for p in (tmp_path / "new").iterdir()] == ["config.json"]
  by_file = RealmConfig.from_pretrained(REFERENCE / "scorer" / "config.json")
  assert by_file == config and hash(by_file) == hash(config)
  assert config.architectures == ["RealmScorer"] and config.hidden_size == 32


def test_overrides_and_unknown_keys_are_attributes():
  config = RealmConfig.from_pretrained(
    REFERENCE / "scorer", num_candidates=3, depth=[1, {"a": None}]
  )
  assert (config.num_candidates, config.depth) == (3, [1, {"a": None}])
  assert config.transformers_version == "4.34.0"
  again = RealmConfig.from_dict(json.loads(config.to_json_string()))
  assert again == config
  wider = dataclasses.replace(config, hidden_size=64)
  assert (wider.depth, wider.hidden_size) == (config.depth, 64)
  with pytest.raises(AttributeError, match="no attribute 'width'"):
    config.width  # noqa: B018


def test_defaults_of_the_module_arguments():
  config = RealmConfig()
  assert not config.output_attentions and not config.output_hidden_states
  assert config.use_return_dict and config.architectures is None
  config = RealmConfig(output_attentions=True, return_dict=False)
  assert config.output_attentions and not config.use_return_dict
  assert json.loads(config.to_json_string())["output_attentions"] is True


def test_our_own_fields_are_written_where_they_are_set():
  assert "pooling" not in RealmConfig().to_json_string()
  config = RealmConfig(pooling="mean")
  text = config.to_json_string()
  assert RealmConfig.from_dict(json.loads(text)).pooling == "mean"
  assert json.loads(text)["model_type"] == "realm" and not config.extra


def relu(x):
  return max(x, 0)


def test_a_function_is_held_and_not_written(tmp_path):
  config = RealmConfig(hidden_act=relu)
  assert config == RealmConfig(hidden_act=relu) != RealmConfig()
  assert hash(config) == hash(RealmConfig(hidden_act=relu))
  with pytest.raises(InputError, match="a function can't be written to JSON"):
    config.save_pretrained(tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("given", "said"),
  [
    ({"hidden_size": 10, "num_attention_heads": 4}, "not a multiple of"),
    ({"hidden_act": "swish"}, "hidden_act='swish': wanted one of gelu, gelu_n"),
    ({"reader_beam_size": 0}, "reader_beam_size=0: wanted a whole number >= 1"),
    ({"searcher_beam_size": 2.0}, "searcher_beam_size=2.0: wanted a whole"),
    ({"vocab_size": True}, "vocab_size=True: wanted a whole number"),
    ({"num_block_records": -1}, "num_block_records=-1: wanted a whole"),
    ({"hidden_dropout_prob": 1.5}, "wanted a share in"),
    ({"attention_probs_dropout_prob": "a"}, "='a': wanted a share in"),
    ({"layer_norm_eps": -1e-12}, "layer_norm_eps=-1e-12: wanted a number >= 0"),
    ({"reader_layer_norm_eps": float("nan")}, "=nan: wanted a number >= 0"),
    ({"initializer_range": -1}, "initializer_range=-1"),
    ({"pad_token_id": 0.5}, "pad_token_id=0.5: wanted a whole number"),
    ({"pooling": "max"}, "pooling='max'"),
    ({"position_embedding_type": "relative_key"}, "there is only 'absolute'"),
    ({"pruned_heads": {"0": [1]}}, "there is only {}"),
    ({"depth": {1, 2}}, "depth={1, 2}: .* not JSON serializable"),
  ],
)
def test_what_no_model_can_have_is_refused(given, said):
  with pytest.raises(InputError, match=said):
    RealmConfig(**given)


@pytest.mark.parametrize(
  ("text", "said"),
  [
    (None, "no such file"),
    ("{", "not JSON"),
    ("[1]", "wanted an object"),
    ('{"hidden_size": "big"}', "config.json: config hidden_size='big'"),
  ],
)
def test_a_broken_file_is_named(tmp_path, text, said):
  if text is not None:
    (tmp_path / "config.json").write_text(text)
  with pytest.raises(InputError, match=said) as e:
    RealmConfig.from_pretrained(tmp_path)
  assert str(tmp_path) in str(e.value)
