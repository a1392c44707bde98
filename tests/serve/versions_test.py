"""A run asked with another index version: which, and what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest
import scipy.special

from realm_jax.config import InputError
from realm_jax.data import features
from realm_jax.retrieval import index, manifest
from realm_jax.serve import churn, run

STEP = 3  # of the tiny runs' checkpoints


@pytest.fixture(scope="module")
def opened(demo):
  return run.open_run(demo)


@pytest.fixture
def publish(demo, opened, tmp_path):
  """publish(**manifest) -> version 7 of a run elsewhere, with its data."""

  def call(run_dir=tmp_path / "other", version=7, noise=0.0, **more):
    rng = np.random.default_rng(1)
    emb = np.asarray(opened.block_emb)
    emb = emb + noise * rng.standard_normal(emb.shape).astype(np.float32)
    made = {
      "tokenizer_hash": opened.tokenizer.hash,
      "corpus_hash": opened.store.meta["corpus_hash"],
      "template": manifest.template(opened.config["block_len"]),
      "params_step": STEP,
      "params_hash": index.params_hash(opened.params["embedder"]),
      "seconds": 0.1,
    }
    return index.publish_version(run_dir, version, emb, made | more)

  return call


def test_a_version_by_number_directory_or_run(demo, opened, publish, tmp_path):
  path = publish(noise=1.0)
  for named in (path, tmp_path / "other"):
    other = run.open_run(demo, str(named))
    assert other.index_version == 7
    assert np.abs(np.asarray(other.block_emb - opened.block_emb)).max() > 1
  again = run.open_run(demo, "4")
  assert again.index_version == 4
  np.testing.assert_array_equal(again.block_emb, opened.block_emb)


@pytest.mark.parametrize(
  ("named", "said"),
  [
    ("5", "finetune/index/5: no such index version; there are: 4"),
    ("no/where", "--config.index=no/where: no index version: wanted the numb"),
  ],
)
def test_no_such_version(demo, named, said):
  with pytest.raises(InputError, match=said):
    run.open_run(demo, named)


@pytest.mark.parametrize(
  ("key", "said"),
  [
    ("tokenizer_hash", "tokenizer_hash is 'another', but model, tokenizer or"),
    ("corpus_hash", "corpus_hash is 'another', but there is .*data/blocks "),
    ("params_hash", r"params_hash is 'another', but .*\(step 3\) has "),
    ("template", "template is 'another', but model, tokenizer or corpus have"),
  ],
)
def test_what_does_not_fit_is_refused_by_name(demo, publish, key, said):
  path = publish(**{key: "another"})
  with pytest.raises(InputError, match=f"{path}/manifest.json: {said}"):
    run.open_run(demo, str(path))


def test_the_newest_version_may_be_older_than_the_params(
  demo, publish, tmp_path
):
  """Not another model's: of the checkpoint's step, it has its params."""
  copy = tmp_path / "demo"
  shutil.copytree(demo, copy)
  publish(copy / "finetune", params_step=1, params_hash="old")
  assert run.open_run(copy).index_version == 7
  publish(copy / "finetune", version=8, params_hash="another")
  with pytest.raises(InputError, match="json: params_hash is 'another', but"):
    run.open_run(copy)
  # an index elsewhere of params that the run has searched
  path = publish(params_hash="old")
  assert run.open_run(copy, str(path)).index_version == 7


def _flip(path):
  path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


@pytest.mark.parametrize(
  ("damage", "said"),
  [
    (lambda v: _flip(v / "block_emb/c/0/0"), "c/0/0 is damaged"),
    (lambda v: (v / "block_emb/c/0/0").unlink(), "c/0/0 is missing"),
    (lambda v: (v / "manifest.json").write_text("{"), "json.* is damaged"),
  ],
)
def test_damage_is_named_and_the_last_good_stays(
  demo, publish, tmp_path, damage, said
):
  copy = tmp_path / "demo"
  shutil.copytree(demo, copy)
  damage(publish(copy / "finetune"))
  with pytest.raises(InputError, match=rf"7/.*{said}.*\(--config.index\)"):
    run.open_run(copy)
  assert run.open_run(copy, "4").index_version == 4


def _embed(opened, texts):
  ids = opened.tokenizer.encode_batch(texts)
  query = features.query_inputs(
    ids, opened.config["query_len"], opened.tokenizer
  )
  embed = jax.jit(opened.retrieval.embed_query)
  return np.asarray(embed(opened.params, query))


def test_churn_against_numpy(demo, opened, publish):
  path = publish(noise=0.3)
  other = run.open_run(demo, str(path))
  got = churn.measure(opened, other, k=4, num_queries=7)
  texts = churn._sample(opened.store, 7)
  query_emb = _embed(opened, texts)
  embs = [np.asarray(opened.block_emb), np.asarray(other.block_emb)]
  best = [np.argsort(-query_emb @ e.T)[:, :4].tolist() for e in embs]
  shared = [len({*a} & {*b}) for a, b in zip(*best, strict=True)]
  assert got.overlap == pytest.approx(np.mean(shared) / 4)
  assert 0 < got.overlap < 1
  length = np.linalg.norm(embs[0], axis=1)
  moved = np.linalg.norm(embs[1] - embs[0], axis=1) / length
  assert got.moved == pytest.approx(moved.mean(), rel=1e-5)
  assert got.most == pytest.approx(moved.max(), rel=1e-5)
  assert (got.num_queries, got.changed, got.both) == (7, 11, 11)
  same = churn.measure(opened, opened, k=20, num_queries=20)
  assert same == churn.Churn(11, 11, 1.0, 0, 0, 11, 0, 0.0, 0.0)


def test_queries_whose_evidence_changed(demo, opened, publish):
  other = run.open_run(demo, str(publish(noise=0.3)))
  texts = churn._sample(opened.store, 7)
  found = churn.examples(opened, other, texts, k=4)
  kept = [example.kept for example in found]
  assert kept == sorted(kept) and 0 < len(found) <= 7 and max(kept) < 4
  share = churn.measure(opened, other, k=4, num_queries=7).overlap
  assert sum(kept) + 4 * (7 - len(found)) == pytest.approx(7 * 4 * share)
  query = _embed(opened, texts)
  emb = np.asarray(opened.block_emb)
  assert opened.retrieval.score_scale != 1
  for example in found:
    score = opened.retrieval.score_scale * query[texts.index(example.query)]
    p = scipy.special.softmax(np.sort(emb @ score)[::-1][:4])
    assert [b.p for b in example.before] == pytest.approx(p, rel=1e-3)
    before = {block.block_id for block in example.before}
    after = {block.block_id for block in example.after}
    assert example.only_before == before - after
    assert example.only_after == after - before
    assert sum(b.p for b in example.after) == pytest.approx(1, rel=1e-5)
    assert all(b.text for b in (*example.before, *example.after))
  assert churn.examples(opened, opened, texts, k=4) == []


def test_a_run_of_one_version_has_no_changes(demo):
  assert churn.find_changes(demo / "finetune", 4, 7, 2) is None


@pytest.mark.parametrize("field", ["joint_len", "embedder", "score_scale"])
def test_a_run_without_a_field_is_refused_by_its_name(demo, tmp_path, field):
  copy = tmp_path / "copy"
  shutil.copytree(demo / "finetune", copy)
  config = json.loads((copy / "config.json").read_text())
  del config[field]
  (copy / "config.json").write_text(json.dumps(config))
  with pytest.raises(InputError, match=f"this run has no {field}: "):
    run.open_run(copy)
