"""A refresh worker, in this process: what it makes, refuses and gives up on."""

import dataclasses
import json
import shutil
import threading

import jax
import numpy as np
import pytest

from realm_jax import files, run_config
from realm_jax.config import InputError
from realm_jax.retrieval import heartbeat, staging
from realm_jax.retrieval import index as versions
from realm_jax.train import build_index, checkpoint, worker
from tests.faults import toy


@pytest.fixture
def run(tmp_path):
  """A run that has been trained for 10 of 20 steps; a version every 10."""
  run = tmp_path / "run"
  versions.start_over(run)
  run_config.claim(
    run, {"train": {"num_steps": 20}, "refresh": {"every_steps": 10}}
  )
  save(run, 10)
  return run


def save(run, step, params=None):
  checkpoints = checkpoint.Checkpoints(run, keep=9)
  params = params or toy.params(step)
  checkpoints.save(step, {"state": {"params": params}})
  checkpoints.close()


def work(run, **options):
  toy.work(run, **{"wait_seconds": 0.2, **options})


def until_idle(run, **options):
  """Works as long as there is something to do."""
  with pytest.raises(worker.GivesUp, match="no new checkpoint in"):
    work(run, **options)


def made(run) -> list[int]:
  """Steps of the params of the versions."""
  return [
    versions.read_manifest(run, v)["params_step"]
    for v in versions.list_versions(run)
  ]


def said(run, name="w") -> dict:
  return files.read_json(run / "workers" / f"{name}.json")


def test_a_version_of_each_checkpoint_that_is_due_then_the_end(run, capsys):
  until_idle(run)
  save(run, 15)  # not due yet
  until_idle(run)
  assert made(run) == [10]
  expect = {**toy.META, "run": versions.run_id(run), "shape": [toy.N, toy.P]}
  block_emb, manifest = versions.read_version(run, 0, expect)
  params = toy.params(10)
  assert manifest["params_hash"] == versions.params_hash(params["embedder"])
  want = jax.jit(toy.Retrieval().embed_blocks)(params, toy.blocks())
  np.testing.assert_allclose(block_emb, want, rtol=1e-5)
  save(run, 20)
  work(run)  # the last: it ends by itself
  assert made(run) == [10, 20]
  assert "worker w: the run has ended" in capsys.readouterr().err
  last = said(run)
  assert (last["state"], last["params_step"]) == ("ended", 20)
  assert (last["done"], last["total"], last["version"]) == (5, 5, 1)
  assert not (run / "index/.build").exists()


def test_no_checkpoint_then_one_that_is_short_of_it(tmp_path):
  with pytest.raises(worker.GivesUp, match="no checkpoint yet"):
    work(tmp_path / "nothing")


def test_never_backwards(run):
  save(run, 20)
  work(run)
  shutil.rmtree(run / "checkpoints/20")  # a person goes back to step 10
  until_idle(run)
  assert made(run) == [20]


def test_a_run_that_began_anew_is_another_run(run, monkeypatch):
  """Under a worker that knows the old one."""
  naps, sleep = [], worker._Worker._sleep

  def begin_anew(self, seconds):
    naps.append(seconds)
    if made(run) == [10] and len(naps) < 9:
      shutil.rmtree(run / "checkpoints")
      versions.start_over(run)
      save(run, 10, toy.params(77))
    sleep(self, seconds)

  monkeypatch.setattr(worker._Worker, "_sleep", begin_anew)
  naps[:] = range(7)  # so that it happens once
  until_idle(run, wait_seconds=0.5)
  (version,) = versions.list_versions(run)
  found = versions.read_manifest(run, version)
  assert found["run"] == versions.run_id(run)
  new = versions.params_hash(toy.params(77)["embedder"])
  assert found["params_hash"] == new


def test_params_that_are_not_finite_are_never_published(run, capsys):
  until_idle(run)
  bad = toy.params(20)
  bad["embedder"]["words"][7, 2] = np.nan
  save(run, 20, bad)
  until_idle(run)
  assert made(run) == [10]
  told = capsys.readouterr().err
  assert told.count("params that are not finite") == 1
  with files.atomic_publish(run / "config.json") as tmp:
    tmp.write_text(
      json.dumps({"train": {"num_steps": 30}, "refresh": {"every_steps": 10}})
    )
  save(run, 30)
  work(run)
  assert made(run) == [10, 30]


def test_rows_that_are_not_finite_are_never_published(run, monkeypatch):
  """Params can be finite and what they give not."""
  huge = toy.params(10)
  huge["embedder"]["words"][:] = 3e38
  shutil.rmtree(run / "checkpoints")
  save(run, 10, huge)
  until_idle(run)
  assert made(run) == []
  save(run, 20)
  work(run)
  assert made(run) == [20]


def test_the_second_of_one_name_is_refused_by_name(run):
  with (
    heartbeat.held(run, "w"),
    pytest.raises(InputError, match=r"a worker w is at work here: .*--id"),
  ):
    work(run)
  with pytest.raises(InputError, match=r"--id=\.\./x: wanted letters"):
    work(run, name="../x")


def test_a_dead_workers_chunks_stay_and_its_claim_is_free(run, monkeypatch):
  monkeypatch.setenv("REALM_FAILPOINT", "build_chunk_3:raise")
  with pytest.raises(RuntimeError, match="build_chunk_3"):
    work(run)
  monkeypatch.delenv("REALM_FAILPOINT")
  save(run, 20)  # newer; but the build that was begun comes first
  work(run, name="v")
  assert made(run) == [10, 20]
  lines = (run / "chunks.jsonl").read_text().splitlines()
  of_10 = [json.loads(x)["chunk"] for x in lines if '"params_step": 10' in x]
  assert sorted(of_10) == [0, 1, 2, 3, 4]


def test_what_another_published_before_the_lock_is_not_made_again(
  run, monkeypatch
):
  joined, before = worker.shared_build.joined, []
  other = dataclasses.replace(toy.OPTIONS, name="other", wait_seconds=0.2)

  def late(workdir, name, *rest):
    if not before:  # one that is done before this one has the lock
      before.append(name)
      with pytest.raises(worker.GivesUp):
        worker.work(run, other, toy.open_source)
    return joined(workdir, name, *rest)

  monkeypatch.setattr(worker.shared_build, "joined", late)
  until_idle(run)
  assert made(run) == [10] and before == ["w"]
  lines = (run / "chunks.jsonl").read_text().splitlines()
  assert len(lines) == len(set(lines)) == 5
  assert not (run / "index/.build").exists()


def test_a_build_whose_checkpoint_is_gone_starts_over(run, monkeypatch):
  monkeypatch.setenv("REALM_FAILPOINT", "build_chunk_3:raise")
  with pytest.raises(RuntimeError):
    work(run)
  monkeypatch.delenv("REALM_FAILPOINT")
  save(run, 20)
  shutil.rmtree(run / "checkpoints/10")
  work(run)
  assert made(run) == [20]


def test_two_share_the_chunks_of_one_build(run):
  """One holds a claim and the lock; the other does the rest, then waits."""
  source = toy.open_source(run, 10)
  identity = {**source.manifest, "chunk_blocks": toy.CHUNK}
  with staging.lock(run, shared=True) as lock:
    with staging.Staging(run, identity, job="other", alone=True) as stage:
      stage.open_rows((toy.N, toy.P), np.float32, toy.CHUNK)
      with stage.claim(2) as mine:
        assert mine
        with stage.claim(2) as twice:
          assert not twice
        thread = threading.Thread(target=_in_thread, args=(run,))
        thread.start()
        while len(stage.finished()) < 4:
          thread.join(0.02)
          assert thread.is_alive()
        thread.join(0.2)
        assert thread.is_alive() and 2 not in stage.finished()
        build_index.embed_chunk(
          source, source.store, stage, source.params, 2, lambda *_: None
        )
      assert not lock.alone()  # the other is there: it will publish
    thread.join(20)
  assert made(run) == [10]
  versions.read_version(run, 0, {})


def _in_thread(run):
  """A worker without its signal handler, which is the main thread's."""
  options = worker.Options(**{**vars(toy.OPTIONS), "wait_seconds": 0.5})
  with heartbeat.held(run, "thread") as heart, pytest.raises(worker.GivesUp):
    worker._Worker(run, options, heart, toy.open_source).run()


@pytest.mark.parametrize("how", ["disk_full", "io_error"])
def test_it_retries_then_has_a_last_word(run, monkeypatch, capsys, how):
  monkeypatch.setenv("REALM_FAILPOINT", f"build_chunk_2:{how}")
  words = {"disk_full": "no space left", "io_error": "Input/output error"}[how]
  with pytest.raises(worker.GivesUp, match=f"after 4 failures, .*{words}"):
    work(run)
  told = capsys.readouterr().err
  assert [f"again in {s} s" in told for s in (0.05, 0.1, 0.2, 0.4)] == [
    True, True, True, False,
  ]  # fmt: skip
  assert said(run)["state"] == "gave up" and words in said(run)["message"]
  monkeypatch.delenv("REALM_FAILPOINT")
  until_idle(run)
  assert made(run) == [10]


def test_a_damaged_checkpoint_is_named_and_not_used(run):
  file = next((run / "checkpoints/10/tree").rglob("d/*"))
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)
  with pytest.raises(worker.GivesUp, match="is not what was saved"):
    work(run, retries=1)
  assert made(run) == []


def test_it_ends_with_its_parent(run):
  with pytest.raises(SystemExit) as e:
    work(run, parent=1)  # is not its parent
  assert e.value.code == 0
  assert said(run)["state"] == "stopped"
