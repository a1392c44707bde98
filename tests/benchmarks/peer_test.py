"""Measuring beside a peer: the pipe to it, the same work for both, bad flags."""

import dataclasses
import pathlib
import sys

import jax
import numpy as np
import pytest

from benchmarks import embed, peer, sized, start, step_peer, synthetic
from realm_jax.config import InputError
from realm_jax.models import convert
from realm_jax.models.embedder import RealmScorer

SIZES = sized.Sizes(
  B=2, K=3, Q=11, C=19, L=26, M=4, V=61, layers=1, hidden=8, heads=2,
  block=14, query=9,
)  # fmt: skip
STUB = f"""
import sys
sys.path.insert(0, {str(pathlib.Path(peer.__file__).parent / "peers")!r})
import numpy, worker
print("a library prints")
worker.serve("stub 3 on " + sys.argv[2], {{
  "double": lambda i: lambda: {{"twice": numpy.array(2 * i)}},
}})
"""


@pytest.fixture
def stub(tmp_path):
  script = tmp_path / "stub.py"
  script.write_text(STUB)
  return script


def test_a_peer_runs_what_it_is_told_to(stub, tmp_path):
  with peer.started(stub, sys.executable, tmp_path, 5) as other:
    assert other.about == "stub 3 on 5"
    assert 0 < other.run("double", 7) < 1
    arrays = other.run("double", 7, save=tmp_path / "answer.npz")
    assert arrays["twice"] == 14
  assert other._process.returncode == 0


def test_a_peer_that_ends_is_named(stub, tmp_path, capfd):
  gone = pytest.raises(InputError, match=r"the peer ended.*benchmarks/peer\.py")
  with gone, peer.started(stub, sys.executable, tmp_path, 5) as other:
    other.run("treble", 7)
  assert "KeyError: 'treble'" in capfd.readouterr().err
  with (
    pytest.raises(InputError, match="--peer_python=/nowhere/python"),
    peer.started(stub, "/nowhere/python", tmp_path),
  ):
    pass


def test_rounds_take_turns():
  ran = []

  def program(name, told=None):
    return lambda i: ran.append((i, name)) or told

  seconds = start.interleaved({"a": program("a"), "b": program("b", 2.5)}, 2)
  # the short one twice in a row
  b = [(0, "b"), (1, "b"), (1, "a"), (1, "a"), (2, "a"), (2, "a"), (2, "b")]
  assert ran == [(0, "a"), (0, "a"), *b]
  assert seconds["a"].shape == (2,) and seconds["a"].max() < 1
  assert seconds["b"].tolist() == [2.5, 2.5]


@pytest.mark.parametrize(
  ("argument", "said"),
  [("--roundz=3", "roundz"), ("more", "'more': only flags")],
)
def test_a_bad_argument_ends_in_one_line(argument, said, monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["bench", argument])
  with pytest.raises(SystemExit, match="2"):
    start.run(lambda f: pytest.fail("it ran"))
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("error: ") and said in line


@pytest.fixture(scope="module")
def realm():
  return sized.make_realm(SIZES, SIZES.config(retriever_proj_size=5))


def zeros(module):
  shapes = jax.eval_shape(
    lambda: convert.fresh_params(module, jax.random.key(0))
  )
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


@pytest.fixture(scope="module")
def params(realm):
  retriever = zeros(realm.retrieval.embedder)
  return {"embedder": retriever, "encoder": zeros(realm.encoder)}


def test_the_peer_gets_the_same_batch(realm, params, tmp_path):
  made = [sized.make_batch(SIZES, seed) for seed in range(2)]
  step_peer.hand_over(tmp_path, realm, params, made)
  with np.load(tmp_path / "step_1.npz") as arrays:
    given = dict(arrays)
  assert given["block/input_ids"].shape == (2, 3, 19)
  assert given["joint/input_ids"].shape == (2, 3, 26)
  labelled = given["joint/labels"] != -100
  assert (labelled == given["joint/mlm_mask"]).all()
  assert (labelled.sum(1) == SIZES.M).all()
  for k in range(
    SIZES.K
  ):  # the label stands where the joint sequence has [MASK]
    ids = given["joint/input_ids"][:, k]
    assert (ids[labelled] == synthetic.SPECIALS.mask).all()
  batch = made[1].batch
  at = np.take_along_axis(given["joint/labels"], batch.mlm_positions, 1)
  assert (at == batch.mlm_targets).all()
  lens = given["block/attention_mask"].sum(-1)
  assert (lens == made[1].blocks.lens + 3).all()
  assert {"RealmScorer", "RealmKnowledgeAugEncoder"} <= {
    path.name for path in tmp_path.iterdir()
  }


def test_tight_room_cuts_nothing(realm):
  made = [sized.make_batch(SIZES, seed) for seed in range(3)]
  tight = step_peer.tight(realm, made).retrieval.fill
  query = [float(g.batch.query.attention_mask.mean()) for g in made]
  assert tight.query == pytest.approx(max(query)) and max(query) > min(query)
  for g in made:
    narrow = step_peer.tight(realm, made)
    assert float(narrow.room(g.batch, g.blocks)["cut_tokens"]) == 0
  assert 0 < tight.block < 1 and 0 < tight.joint < 1


def test_other_work_is_refused(realm, params):
  rng = np.random.default_rng(0)
  grads = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
  scorer = RealmScorer(realm.encoder.config)
  theirs = convert.to_torch_state(scorer, {"embedder": grads["embedder"]})
  theirs |= convert.to_torch_state(realm.encoder, grads["encoder"])
  theirs = {k: v.copy() for k, v in theirs.items()}
  theirs["loss"] = np.array(4.0)
  loss, gradients = step_peer.differences(realm, 4.00005, grads, theirs)
  assert loss == pytest.approx(5e-5) and gradients == 0
  with pytest.raises(InputError, match=r"losses differ by 2\.0e-04"):
    step_peer.differences(realm, 4.0002, grads, theirs)
  theirs["cls.predictions.bias"] += 1
  with pytest.raises(InputError, match="not the same work"):
    step_peer.differences(realm, 4.0, grads, theirs)
  del theirs["cls.predictions.bias"]
  with pytest.raises(
    InputError, match=r"no gradient of cls\.predictions\.bias"
  ):
    step_peer.differences(realm, 4.0, grads, theirs)


def test_the_peers_batches_hold_all_blocks():
  config = SIZES.config(retriever_proj_size=5)
  buckets = embed.make_buckets(config, SIZES.C, synthetic.SPECIALS)
  buckets = dataclasses.replace(buckets, batch_size=4)
  rng = np.random.default_rng(1)
  blocks = synthetic.block_tokens(rng, (10,), SIZES.C, SIZES.V, SIZES.block)
  sizes = {}
  for by_length in (False, True):
    batches = list(embed.peer_batches(buckets, blocks, by_length))
    masks = [b["attention_mask"] for b in batches]
    assert [len(m) for m in masks] == [4, 4, 2]
    assert all(m.sum(1).max() == m.shape[1] for m in masks)
    lens = np.concatenate([m.sum(1) for m in masks])
    assert sorted(lens) == sorted(blocks.lens + 3)
    sizes[by_length] = sum(m.size for m in masks)
  assert sizes[True] < sizes[False]


def test_embeddings_that_differ_are_refused():
  emb = np.ones((3, 5), np.float32)
  assert embed.check_same(emb, emb + 5e-5) == pytest.approx(5e-5, rel=0.01)
  with pytest.raises(InputError, match="not the same work"):
    embed.check_same(emb, emb + 2e-4)


def test_no_data_to_embed_is_refused(tmp_path):
  with pytest.raises(InputError, match=r"run experiments\.prepare_data"):
    embed.stored(str(tmp_path), 5, SIZES.C)
