"""The loop: bit-equal resumes, bad losses named, signals, the bounded window."""

import collections
import contextlib
import gzip
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from realm_jax.config import InputError
from realm_jax.formats import tfrecord
from realm_jax.train import checkpoint, loop, metrics, profile, stop, telemetry

_TOY = pathlib.Path(__file__).with_name("toy_run.py")
_spec = importlib.util.spec_from_file_location("toy_run", _TOY)
toy_run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy_run)


def _figures(workdir):
  """What must be the same in two runs of the same thing."""
  return [
    {k: v for k, v in line.items() if k not in metrics.TIMINGS}
    for line in metrics.read_metrics(workdir)
  ]


def _kernel(state):
  return np.asarray(state.params["toy"]["kernel"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A run that nothing interrupts: its workdir and its last state."""
  workdir = tmp_path_factory.mktemp("whole")
  return workdir, toy_run.run(workdir)


def test_lines_are_on_cadence_and_where_the_index_was_swapped(whole):
  lines = _figures(whole[0])
  steps = [line["step"] for line in lines if "loss" in line]
  assert steps == sorted({*range(2, 25, 2), 11, 21})
  swaps = [line["step"] for line in lines if "swap_norm" in line]
  assert swaps == [6, 11, 16, 21]
  assert [x["step"] for x in lines if "toy/norm" in x] == [6, 12, 18, 24]
  timed = metrics.read_metrics(whole[0])
  assert all(x["input_seconds"] > 0 for x in timed if "loss" in x)
  paced = [x for x in timed if "steps_per_second" in x]
  assert paced and all(
    x["tokens_per_second"] == pytest.approx(40 * x["steps_per_second"])
    for x in paced
  )
  assert all(x["step_seconds_p50"] <= x["step_seconds_p99"] for x in paced)
  assert not any("mfu" in x for x in timed)  # nobody knows a CPU's peak
  # the seconds of a checkpoint stand in the line after it, the last one's not
  saved = [x["step"] for x in timed if "checkpoint_seconds" in x]
  assert saved == [6, 10, 14, 18, 21]


def test_loss_of_each_line_is_that_steps_own(whole, tmp_path):
  toy_run.run(tmp_path, log_every=1, max_in_flight=1)
  every = {x["step"]: x["loss"] for x in _figures(tmp_path) if "loss" in x}
  lines = [x for x in _figures(whole[0]) if "loss" in x]
  assert {x["step"]: x["loss"] for x in lines}.items() <= every.items()


def test_finished_run_started_again_changes_nothing(whole):
  before = (whole[0] / "metrics.jsonl").read_bytes()
  state = toy_run.run(whole[0])
  np.testing.assert_array_equal(_kernel(state), _kernel(whole[1]))
  assert (whole[0] / "metrics.jsonl").read_bytes() == before


def test_progress_ends_at_the_last_step(tmp_path, capsys):
  toy_run.run(tmp_path, num_steps=7, eval_every=0)
  shown = capsys.readouterr().err.splitlines()
  assert shown[-1].startswith("step 7/7  loss ")
  assert "index_version 1" in shown[-1]


def _start_and_die(workdir, fail_at):
  env = {**os.environ, "REALM_FAILPOINT": fail_at}
  command = [sys.executable, str(_TOY), str(workdir)]
  done = subprocess.run(
    command, env=env, check=False, capture_output=True, text=True
  )
  assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_twice_and_resumed_gives_the_same_bits(whole, tmp_path):
  _start_and_die(tmp_path, "train_step_15:kill")
  with (tmp_path / "metrics.jsonl").open("a") as f:
    f.write('{"step": 15, "lo')  # a line that the kill has torn
  _start_and_die(tmp_path, "checkpoint_seal:kill")  # while it saves
  assert checkpoint.Checkpoints(tmp_path).latest() in (8, 12)
  left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
  assert any("tmp" in name for name in left)
  state = toy_run.run(tmp_path)
  np.testing.assert_array_equal(_kernel(state), _kernel(whole[1]))
  assert _figures(tmp_path) == _figures(whole[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_step_saves_and_the_next_start_goes_on(
  whole, tmp_path, number, capsys
):
  with pytest.raises(SystemExit) as e:
    toy_run.run(tmp_path, signal_at=7, signal=int(number))
  assert e.value.code == (0 if number == signal.SIGTERM else 128 + number)
  assert f"{number.name}: stopped after step 7" in capsys.readouterr().err
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
  assert checkpoint.Checkpoints(tmp_path).latest() == 7
  toy_run.run(tmp_path)
  assert _figures(tmp_path) == _figures(whole[0])


def test_second_signal_acts_at_once():
  with pytest.raises(KeyboardInterrupt), stop.StopSignals() as stop_asked:
    signal.raise_signal(signal.SIGINT)
    assert stop_asked()
    signal.raise_signal(signal.SIGINT)


def _batch_ids():
  batches = toy_run.make_batches()
  return [next(batches).example_ids.tolist() for _ in range(24)]


@pytest.mark.parametrize(
  ("option", "figure"),
  [("bad_example", "loss is nan"), ("bad_gradient", "grad_norm is nan")],
)
def test_bad_loss_names_step_examples_and_last_good_checkpoint(
  tmp_path, option, figure
):
  ids = _batch_ids()
  # Step 12 is one that a checkpoint follows: it must not be saved.
  with pytest.raises(InputError) as e:
    toy_run.run(tmp_path, eval_every=0, **{option: ids[11][5]})
  told = str(e.value)
  assert told.startswith(f"{figure} at step 12, examples ")
  assert ", ".join(map(str, ids[11])) in told
  assert f"last good checkpoint: 8 in {tmp_path}" in told
  assert "\n" not in told
  assert checkpoint.Checkpoints(tmp_path).latest() == 8


def test_no_more_steps_under_way_than_allowed():
  flight = loop._Flight(
    loop.Schedule(9, 1, 0, 0, 3),
    None,
    types.SimpleNamespace(write=lambda *_: None),
    lambda *_: {},
    telemetry.Meter(),
  )
  for step in range(1, 8):
    spent = collections.Counter(input=0.1)
    flight.add(step, np.arange(2), {"loss": jnp.float32(step)}, {}, spent)
    assert flight.landed == max(0, step - 3)
  flight.drain()
  assert flight.landed == 7


def test_a_swap_is_no_part_of_the_pace(monkeypatch):
  """Nor are the steps that were under way, and ended while it was made."""
  clock, lines = [0.0], {}
  monkeypatch.setattr("time.monotonic", lambda: clock[0])
  flight = loop._Flight(
    loop.Schedule(9, 1, 0, 0, 2),
    None,
    types.SimpleNamespace(write=lines.__setitem__),
    lambda *_: {},
    telemetry.Meter(),
  )
  for step in range(1, 10):
    events = {"refresh_seconds": 50.0} if step == 5 else {}
    clock[0] += 50.0 if events else 2.0
    spent = collections.Counter()
    flight.add(step, np.arange(2), {"loss": 1.0}, events, spent)
  flight.drain()
  seconds = {k: 1 / v.get("steps_per_second", 1e9) for k, v in lines.items()}
  timed = [step for step, s in seconds.items() if s > 1e-8]
  assert timed == [2, 6, 7]
  assert {seconds[step] for step in timed} == {2.0}
  assert {
    k: v["swap_seconds"] for k, v in lines.items() if "swap_seconds" in v
  } == {5: 50.0}


def test_fewer_steps_than_done_is_refused(whole):
  with pytest.raises(InputError, match=r"at step 24 already.*num_steps=20"):
    toy_run.run(whole[0], num_steps=20)


def test_end_of_the_data_is_named(tmp_path):
  class Short:
    def __init__(self):
      self.left = 3
      self.batches = toy_run.make_batches()

    def __next__(self):
      self.left -= 1
      if self.left < 0:
        raise StopIteration
      return next(self.batches)

  with pytest.raises(InputError, match="ended before step 4"):
    toy_run.run(tmp_path, batches=Short(), checkpoint_every=0)


def test_disk_full_while_saving_is_one_line_and_leaves_nothing(
  whole, tmp_path, monkeypatch
):
  monkeypatch.setenv("REALM_FAILPOINT", "checkpoint_seal:disk_full")
  with pytest.raises(InputError, match=r"no space left.*saving step 4") as e:
    toy_run.run(tmp_path)
  assert "\n" not in str(e.value)
  assert list((tmp_path / "checkpoints").iterdir()) == []
  monkeypatch.delenv("REALM_FAILPOINT")
  toy_run.run(tmp_path)
  assert _figures(tmp_path) == _figures(whole[0])


def test_hidden_copy_to_the_device_is_refused(tmp_path):
  with pytest.raises(Exception, match="Disallowed host-to-device"):
    toy_run.run(tmp_path, place=lambda batch: batch)


def test_some_steps_are_traced(tmp_path, capsys):
  toy_run.run(tmp_path, num_steps=5, eval_every=0, profile=range(2, 4))
  (trace,) = (tmp_path / "profile").rglob("*.trace.json.gz")
  events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
  steps = {e["args"]["step_num"] for e in events if e.get("name") == "train"}
  assert steps == {"2", "3"}
  assert f"{tmp_path}/profile: a trace;" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["3", "3:2", "0:2", "5:9", "a:b", "1:2:3"])
def test_steps_to_trace_that_cannot_be(text):
  with pytest.raises(InputError, match=f"--profile={text}: wanted .* 7:8$"):
    profile.parse(text, 8)


def test_steps_to_trace():
  assert list(profile.parse("3:5", 8)) == [3, 4, 5]
  assert list(profile.parse("8:8", 8)) == [8]
  assert not profile.parse("", 8)


@pytest.mark.parametrize(("changes", "last"), [({}, 24), ({"signal_at": 9}, 9)])
def test_tensorboard_has_all_steps_however_a_run_ends(tmp_path, changes, last):
  with contextlib.suppress(SystemExit):
    toy_run.run(tmp_path, log_every=1, **changes)
  (events,) = (tmp_path / "tensorboard").iterdir()
  records = tfrecord.read_tfrecord(events)
  steps = {event_pb2.Event.FromString(record).step for record in records}
  assert steps >= set(range(1, last + 1))
