"""Pre-training: from a warm start, to the end, and through an interruption."""

import signal

import jax
import numpy as np
import pytest

from realm_jax.retrieval import index, journal
from realm_jax.train import checkpoint, metrics
from tests import launched

NUM_STEPS = 8  # with a checkpoint after 3 and 6, a refresh after 2, 4 and 6
KILLED_AT = 7  # the second checkpoint may be under way


def arguments(own, workdir, mode):
  return (
    "pretrain",
    "--config=configs/pretrain.py:smoke",
    f"--workdir={workdir}",
    *own.flags(),
    "--config.text_weights=(1.0,)",
    f"--config.refresh.mode={mode}",
    f"--config.train.num_steps={NUM_STEPS}",
  )


def what_happened(workdir):
  """The lines of metrics.jsonl without what is never twice the same."""
  return [
    {k: v for k, v in line.items() if k not in metrics.TIMINGS}
    for line in metrics.read_metrics(workdir)
  ]


@pytest.mark.parametrize(
  "mode", ["interleaved", pytest.param("inline", marks=pytest.mark.nightly)]
)
def test_an_interrupted_run_is_the_uninterrupted_one(
  own, start, start_failing, tmp_path, mode
):
  whole, broken = tmp_path / "whole", tmp_path / "broken"
  outcome = start(*arguments(own, whole, mode))
  assert outcome.code == 0, outcome.err
  at = f"train_step_{KILLED_AT}:kill"
  killed = start_failing(at, *arguments(own, broken, mode))
  assert killed.code == -signal.SIGKILL, killed.err
  newest = checkpoint.Checkpoints(broken).latest()
  assert newest in (3, 6)
  outcome = start(*arguments(own, broken, mode))
  assert outcome.code == 0, outcome.err
  assert f"going on from step {newest}" in outcome.err

  lines = what_happened(whole)
  assert what_happened(broken) == lines
  steps = {line["step"]: line for line in lines if "loss" in line}
  assert list(steps) == [1, 2, 3, 4, 5, 6, 7, 8]
  of_steps = [line["index_version"] for line in steps.values()]
  assert of_steps == [0, 0, 1, 1, 2, 2, 3, 3]
  assert [s for s, v in steps.items() if "swap_overlap" in v] == [3, 5, 7]
  evaluated = [v["step"] for v in lines if "dev/retrieval_utility" in v]
  assert evaluated == [6, 8]
  swaps = [journal.read_swaps(run) for run in (whole, broken)]
  made = [[(s["step"], s["params_step"]) for s in of_run] for of_run in swaps]
  assert made[0] == made[1]
  behind = 2 if mode == "interleaved" else 0
  assert made[0] == [(s, s - behind) for s in (2, 4, 6)]


@pytest.mark.nightly  # tests/retrieval/block_tokens_test.py is of the tokens
@pytest.mark.parametrize(
  ("devices", "mode"), [(1, "inline"), (4, "interleaved")]
)
def test_tokens_on_the_host_change_no_figure(
  own, start, tmp_path, devices, mode
):
  """Two steps, with a refresh after the first and an evaluation at the end."""
  for where in ("device", "host"):
    outcome = start(
      *arguments(own, tmp_path / where, mode),
      f"--config.block_tokens={where}",
      f"--config.mesh.data={devices}",
      "--config.refresh.every_steps=1",
      "--config.train.num_steps=2",
      "--config.train.eval_every=2",
    )
    assert outcome.code == 0, outcome.err
  lines = what_happened(tmp_path / "host")
  assert lines == what_happened(tmp_path / "device")
  assert [line["index_version"] for line in lines if "loss" in line] == [0, 1]


@pytest.mark.nightly  # tests/train/multiprocess_test.py is of the same loop
def test_two_processes_train_as_one_does(own, start, tmp_path):
  one, two = tmp_path / "one", tmp_path / "two"
  more = (
    "--config.mesh.data=-1",
    "--config.mesh.fsdp=2",
    "--config.train.batch_size=8",
    "--config.train.num_steps=4",
    "--config.refresh.slice_size=4",
  )
  job = launched.start(
    "-m", "experiments.pretrain", *arguments(own, two, "interleaved")[1:], *more
  )
  outcome = start(*arguments(own, one, "interleaved"), *more)
  assert outcome.code == 0, outcome.err
  code, said = launched.end(job)
  assert code == 0, said
  launched.assert_same_figures(one, two)
  made = [[s["step"] for s in journal.read_swaps(run)] for run in (one, two)]
  assert made == [[2], [2]]
  emb = [index.read_version(run, 1, {})[0] for run in (one, two)]
  np.testing.assert_allclose(*emb, **launched.ROUNDING)
  params = [checkpoint.restore_params(run)[0] for run in (one, two)]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
    *params,
  )


@pytest.mark.nightly  # the smoke demo takes the same way
def test_warm_start_of_the_encoder_then_of_pretraining(own, start, tmp_path):
  warm, run = tmp_path / "encoder", tmp_path / "pretrain"
  outcome = start(
    "pretrain",
    "--config=configs/encoder.py:smoke",
    f"--workdir={warm}",
    *own.flags(),
    "--config.text_weights=(1.0,)",
    "--config.train.num_steps=2",
  )
  assert outcome.code == 0, outcome.err
  trained, *_ = checkpoint.restore_params(warm)
  init = [f"--config.init.{part}={warm}" for part in ("embedder", "encoder")]
  still = "--config.train.learning_rate=0.0"
  outcome = start(*arguments(own, run, "interleaved"), *init, still)
  assert outcome.code == 0, outcome.err
  params, *_ = checkpoint.restore_params(run)
  jax.tree.map(np.testing.assert_array_equal, params, trained)
