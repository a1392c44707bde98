"""Refresh by a worker as a person starts it: supervised, journalled, replayed."""

from realm_jax.retrieval import index as versions
from realm_jax.retrieval import journal
from realm_jax.train import metrics


def arguments(own, workdir, *more):
  return (
    "pretrain",
    "--config=configs/pretrain.py:smoke",
    f"--workdir={workdir}",
    *own.flags(),
    "--config.text_weights=(1.0,)",
    "--config.train.num_steps=12",
    "--config.train.checkpoint_every=2",
    "--config.refresh.mode=worker",
    "--config.refresh.every_steps=3",
    "--config.refresh.max_staleness_steps=5",
    "--config.refresh.poll_steps=1",
    "--config.refresh.keep=99",
    *more,
  )


def test_a_supervised_run_and_its_replay(own, start, start_failing, tmp_path):
  run, replay = tmp_path / "run", tmp_path / "replay"
  live = arguments(own, run, "--config.refresh.supervise=1")
  outcome = start_failing("nowhere:kill", *live)
  assert outcome.code == 0, outcome.err
  assert "worker local-0: the run has ended" in outcome.err
  swaps = journal.read_swaps(run)
  assert swaps and swaps[0]["step"] <= 6
  newest = versions.latest_version(run)
  assert versions.read_manifest(run, newest)["params_step"] == 12
  lines = [x for x in metrics.read_metrics(run) if "loss" in x]
  assert all(x["index_staleness"] <= 5 for x in lines)
  assert all(
    x["staleness_seconds"] > 0 and 0 <= x["refresh_share"] < 1 for x in lines
  )
  assert {"workers_alive", "worker_silent_seconds"} <= lines[-1].keys()

  outcome = start("verify", f"--workdir={run}")
  assert outcome.code == 0 and outcome.out.count("as they were written") == (
    newest + 1
  )
  again = arguments(
    own, replay, f"--config.refresh.replay={run}/index/swaps.jsonl"
  )
  outcome = start(*again)
  assert outcome.code == 0, outcome.err
  of_runs = [
    [
      {k: v for k, v in line.items() if k not in metrics.TIMINGS}
      for line in metrics.read_metrics(workdir)
    ]
    for workdir in (run, replay)
  ]
  assert of_runs[0] == of_runs[1]

  chunk = versions.version_path(replay, 1) / "block_emb/c/0/0"
  content = bytearray(chunk.read_bytes())
  content[50] ^= 1
  chunk.write_bytes(content)
  outcome = start("verify", f"--workdir={replay}")
  assert outcome.code == 2
  assert outcome.err.startswith(f"error: {chunk} is damaged")
  assert "checkpoints/12: as it was saved" in outcome.out


def test_a_contract_that_no_worker_can_keep_is_refused(own, start, tmp_path):
  for more, named in (
    ("--config.train.checkpoint_every=4", "train.checkpoint_every=4"),
    ("--config.refresh.max_staleness_steps=4", "refresh.max_staleness_steps=4"),
    ("--config.refresh.replay=nowhere.jsonl", "refresh.replay=nowhere"),
  ):
    outcome = start(*arguments(own, tmp_path / "run", more))
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: config {named}")
  assert not (tmp_path / "run").exists()
