"""The trainer's side of refresh by a worker: what is taken, refused, waited for."""

import shutil
import threading
import time

import jax
import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.retrieval import index as versions
from realm_jax.retrieval import journal
from realm_jax.retrieval.contract import TooOld
from tests.faults import toy


@pytest.fixture
def run(tmp_path):
  """A run's directory that has been begun."""
  versions.start_over(tmp_path / "run")
  return tmp_path / "run"


def publish(run, params_step, seed=5, more=()):
  """A version as a worker would make it. -> (its number, its rows)."""
  rows = np.random.default_rng(seed).standard_normal((toy.N, toy.P))
  made = {
    **toy.META,
    "run": versions.run_id(run),
    "params_step": params_step,
    "params_hash": f"of {params_step}",
    "seconds": 1.5,
    **dict(more),
  }
  return versions.publish_next(run, rows.astype(np.float32), made), rows


def begin(run, **config):
  """A refresher with its first index, and the state."""
  refresher, state = toy.make_refresher(run, **config), toy.make_state()
  return refresher, state, refresher.first(state.params)


def settle(refresher, step, state, index):
  """Asks at the same boundary until what is being loaded is loaded."""
  index, figures = refresher(step, state, index)
  if refresher._loading is not None:
    refresher._loading.rows.exception(timeout=20)
    index, figures = refresher(step, state, index)
  return index, figures


def test_a_new_version_is_swapped_in_once_it_is_loaded(run):
  refresher, state, index = begin(run, poll_steps=4)
  same, figures = refresher(3, state, index)
  assert same is index and figures == {}
  version, rows = publish(run, params_step=2)
  assert refresher(3, state, index)[1] == {}  # does not look at this step
  index, figures = settle(refresher, 4, state, index)
  assert (int(index.version), int(index.params_step)) == (version, 2) == (1, 2)
  np.testing.assert_allclose(index.block_emb[: toy.N], rows, rtol=1e-6)
  assert index.block_emb.shape == (toy.ROWS, toy.P)
  assert 0 <= figures["swap_overlap"] < 1
  (swap,) = journal.read_swaps(run)
  assert swap.pop("seconds") == figures["refresh_seconds"] > 0
  assert swap == {
    "step": 4, "version": 1, "params_step": 2, "params_hash": "of 2",
    "overlap": figures["swap_overlap"],
  }  # fmt: skip
  assert settle(refresher, 8, state, index)[1] == {}  # nothing newer


def test_the_newest_that_fits_is_taken_and_never_an_older_one(run):
  refresher, state, index = begin(run)
  publish(run, 3)
  publish(run, 6)
  publish(run, 12)  # of params that this run has not come to yet
  index, _ = settle(refresher, 8, state, index)
  assert (int(index.version), int(index.params_step)) == (2, 6)
  publish(run, 5)
  index, figures = settle(refresher, 9, state, index)
  assert figures == {} and int(index.version) == 2
  assert refresher.said == []
  index, _ = settle(refresher, 12, state, index)
  assert int(index.version) == 3


@pytest.mark.parametrize(
  ("more", "named"),
  [
    ({"run": "another"}, "run is 'another'"),
    ({"corpus_hash": "d"}, "corpus_hash is 'd'"),
    ({"tokenizer_hash": "u"}, "tokenizer_hash is 'u'"),
    ({"template": "y"}, "template is 'y'"),
  ],
)
def test_a_version_of_another_run_is_refused_by_name_once(run, more, named):
  refresher, state, index = begin(run)
  publish(run, 1, more=more)
  for step in range(1, 6):
    same, figures = settle(refresher, step, state, index)
    assert same is index and figures == {}
  (said,) = refresher.said
  assert said.startswith("index version 1 is not used, 0 still is: ")
  assert named in said


@pytest.mark.parametrize("what", ["byte", "cut", "missing", "nan"])
def test_a_damaged_version_is_said_and_skipped(run, what):
  refresher, state, index = begin(run)
  version, _ = publish(run, 1)
  chunk = versions.version_path(run, version) / "block_emb/c/0/0"
  content = bytearray(chunk.read_bytes())
  if what == "byte":
    content[77] ^= 4
    chunk.write_bytes(content)
  elif what == "cut":
    chunk.write_bytes(content[:-9])
  elif what == "missing":
    chunk.unlink()
  else:
    shutil.rmtree(versions.version_path(run, version))
    bad = np.full((toy.N, toy.P), np.nan, np.float32)
    made = {**toy.META, "run": versions.run_id(run), "params_step": 1,
            "params_hash": "", "seconds": 1}  # fmt: skip
    versions.publish_version(run, version, bad, made)
  for step in (1, 2, 3):
    same, figures = settle(refresher, step, state, index)
    assert same is index and figures == {}
  (said,) = refresher.said
  assert "index version 1 is not used" in said
  publish(run, 2)
  index, _ = settle(refresher, 4, state, index)
  assert int(index.version) == 2


def test_at_the_bound_it_goes_on_and_says_so_once(run):
  refresher, state, index = begin(
    run, max_staleness_steps=4, at_bound="continue", poll_steps=100
  )
  for step in range(1, 8):
    same, figures = settle(refresher, step, state, index)
    assert same is index and figures == {}
  (said,) = refresher.said
  assert said.startswith("step 5: index version 0 is of step 0, more than")
  seen = refresher.watch(8, {"index_staleness": 7})
  assert seen["steps_past_bound"] == 3
  assert refresher.watch(5, {"index_staleness": 4})["steps_past_bound"] == 0
  publish(run, 3)  # better than nothing
  index, _ = settle(refresher, 8, state, index)
  assert int(index.params_step) == 3
  for step in (9, 10):
    settle(refresher, step, state, index)
  assert len(refresher.said) == 2


def test_at_the_bound_it_embeds_all_here(run):
  refresher, state, index = begin(
    run, max_staleness_steps=4, at_bound="inline", poll_steps=100
  )
  for step in range(1, 5):
    assert refresher(step, state, index)[1] == {}
  state = state.replace(params=toy.params(9))
  index, figures = refresher(5, state, index)
  assert figures["swap_overlap"] < 1
  want = refresher.embedder.embed_all(
    state.params["embedder"], refresher.tokens
  )
  np.testing.assert_array_equal(index.block_emb, want)
  assert (int(index.version), int(index.params_step)) == (1, 5)
  block_emb, made = versions.read_version(run, 1, refresher._expect())
  np.testing.assert_array_equal(block_emb, want[: toy.N])
  (swap,) = journal.read_swaps(run)
  assert (swap["step"], swap["version"]) == (5, 1)
  assert swap["params_hash"] == made["params_hash"]


def test_at_the_bound_it_waits_for_a_version_that_keeps_it(run):
  refresher, state, index = begin(
    run, max_staleness_steps=4, at_bound="block", poll_steps=100
  )
  publish(run, 1)  # newer, and too old for step 6
  later = threading.Timer(0.4, publish, [run, 3])
  later.start()
  began = time.monotonic()
  index, figures = refresher(6, state, index)
  later.join()
  assert (int(index.version), int(index.params_step)) == (2, 3)
  assert 0.3 < figures["blocked_seconds"] < time.monotonic() - began
  assert figures["refresh_seconds"] >= figures["blocked_seconds"]
  assert refresher.watch(7, {"index_staleness": 3})["refresh_share"] > 0.5


def test_it_waits_no_longer_than_it_may(run):
  refresher, state, index = begin(
    run, max_staleness_steps=4, at_bound="block", block_seconds=0.2
  )
  with pytest.raises(TooOld, match="is of step 0, more than") as e:
    refresher(5, state, index)
  assert "none was ever seen: start one with" in str(e.value)
  assert "\n" not in str(e.value)


def test_who_waits_can_be_told_to_stop(run):
  refresher, state, index = begin(
    run, max_staleness_steps=4, at_bound="block", block_seconds=60.0
  )
  began = time.monotonic()
  with pytest.raises(TooOld):
    refresher(5, state, index, lambda: True)
  assert time.monotonic() - began < 5


def test_a_resume_swaps_as_the_journal_has_it(run):
  refresher, state, index = begin(run)
  rows = {}
  for step, made_at in ((2, 1), (5, 4), (9, 7)):
    version, rows[step] = publish(run, made_at, seed=step)
    index, _ = settle(refresher, step, state, index)
    assert int(index.version) == version
  publish(run, 8)
  before = journal.read_swaps(run)

  again = toy.make_refresher(run)
  again.go_on(5)  # a checkpoint of step 5 came before the swap after it
  assert "2 swaps after step 5 come again" in again.said[0]
  index = again.shell(state.params)
  for step in range(5, 10):
    index, figures = again(step, state, index)
    assert bool(figures) == (step in (5, 9))
    want = rows[9 if step == 9 else 5]
    np.testing.assert_allclose(index.block_emb[: toy.N], want, rtol=1e-6)
  assert journal.read_swaps(run) == before
  index, _ = settle(again, 10, state, index)  # from here on it looks again
  assert int(index.params_step) == 8
  assert len(journal.read_swaps(run)) == 4


def test_what_a_resume_needs_is_not_deleted(run):
  refresher, state, index = begin(run, keep=1)
  for step in range(1, 5):
    publish(run, step)
    index, _ = settle(refresher, step, state, index)
  assert versions.list_versions(run) == [1, 2, 3, 4]  # no checkpoint yet
  refresher._oldest_checkpoint = lambda: 3
  publish(run, 5)
  index, _ = settle(refresher, 5, state, index)
  assert versions.list_versions(run) == [3, 4, 5]
  shutil.rmtree(versions.version_path(run, 4))
  with pytest.raises(InputError, match="index/4: no such index version"):
    toy.make_refresher(run).go_on(3)


def test_a_replay_swaps_as_the_other_run_did(run, tmp_path):
  refresher, state, index = begin(run)
  for step in (2, 6):
    _, rows = publish(run, step - 1, seed=step)
    index, _ = settle(refresher, step, state, index)
  other = tmp_path / "other"
  versions.start_over(other)
  replay = str(run / "index/swaps.jsonl")
  follower, state, index = begin(other, replay=replay)
  for step in range(8):
    index, figures = follower(step, state, index)
    assert bool(figures) == (step in (2, 6))
  np.testing.assert_allclose(index.block_emb[: toy.N], rows, rtol=1e-6)
  assert versions.list_versions(other) == [0, 1, 2]
  versions.read_version(other, 2, {"run": versions.run_id(other)})
  swaps = [journal.read_swaps(r) for r in (run, other)]
  for of_run in swaps:
    for swap in of_run:
      del swap["seconds"]
  assert swaps[0] == swaps[1]

  resumed = toy.make_refresher(other, replay=replay)
  resumed.go_on(6)
  assert len(journal.read_swaps(other)) == 1
  index, figures = resumed(6, state, resumed.shell(state.params))
  assert int(index.version) == 2 and figures
  shutil.rmtree(versions.version_path(run, 1))
  with pytest.raises(InputError, match=f"{run}/index/1: no such index version"):
    toy.make_refresher(other, replay=replay)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("at_bound", "sometimes"), ("poll_steps", 0), ("max_staleness_steps", -1),
    ("block_seconds", -2.0), ("every_steps", 0),
    ("replay", "nowhere/index/swaps.jsonl"),
  ],
)  # fmt: skip
def test_a_contract_that_cannot_be_is_refused(run, field, value):
  with pytest.raises(InputError, match=f"refresh.{field}="):
    toy.make_refresher(run, **{field: value})


def test_staleness_in_seconds_and_share_by_hand(run):
  refresher, _, index = begin(run)
  clock = {"now": 100.0}
  for _ in range(6):  # a step takes 2 seconds
    refresher._ages._times.append(clock["now"])
    clock["now"] += 2
  refresher._lost = 3.0
  with pytest.MonkeyPatch.context() as m:
    m.setattr(time, "monotonic", lambda: clock["now"])
    seen = refresher.watch(6, {"index_staleness": 3})  # of step 2: at 104
  assert seen["staleness_seconds"] == 112 - 104
  assert seen["refresh_share"] == 3 / 12
  assert jax.device_get(index.version) == 0
