"""metrics.jsonl survives kills and resumes; progress has an ETA."""

import json
import math

import numpy as np
import pytest

from realm_jax.config import InputError
from realm_jax.train import metrics


def _steps(workdir):
  return [line["step"] for line in metrics.read_metrics(workdir)]


def test_values_come_back_bit_for_bit(tmp_path):
  writer = metrics.MetricsWriter(tmp_path)
  value = np.float32(1) / np.float32(3)
  writer.write(7, {"loss": value, "count": np.int32(5), "plain": 2})
  (line,) = metrics.read_metrics(tmp_path)  # flushed without a close
  assert np.float32(line["loss"]) == value
  assert (line["step"], line["count"], line["plain"]) == (7, 5, 2)
  assert list((tmp_path / "tensorboard").iterdir())


def test_not_finite_is_null_so_that_every_line_is_strict_json(tmp_path):
  metrics.MetricsWriter(tmp_path).write(
    1, {"a": math.nan, "b": np.float32("inf"), "c": 0.5}
  )
  text = (tmp_path / "metrics.jsonl").read_text()
  line = json.loads(text, parse_constant=pytest.fail)
  assert (line["a"], line["b"], line["c"]) == (None, None, 0.5)


def test_truncate_drops_later_steps_and_a_torn_line(tmp_path):
  writer = metrics.MetricsWriter(tmp_path)
  for step in (5, 10, 10, 15):
    writer.write(step, {"loss": step})
  with (tmp_path / "metrics.jsonl").open("a") as f:
    f.write('{"step": 20, "lo')
  assert _steps(tmp_path) == [5, 10, 10, 15]
  writer = metrics.MetricsWriter(tmp_path)
  writer.truncate_after(10)
  assert _steps(tmp_path) == [5, 10, 10]
  writer.write(15, {"loss": 1.5})
  assert _steps(tmp_path) == [5, 10, 10, 15]


def test_broken_line_in_the_middle_is_named(tmp_path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1}\noops\n{"step": 2}\n')
  with pytest.raises(InputError, match=r"metrics\.jsonl:2: not JSON"):
    metrics.read_metrics(tmp_path)


def test_missing_file_is_named(tmp_path):
  with pytest.raises(InputError, match=r"metrics\.jsonl: no such file"):
    metrics.read_metrics(tmp_path)


def test_a_run_shows_its_steps_and_what_to_watch(capsys, monkeypatch):
  clock = [0.0]
  monkeypatch.setattr("time.monotonic", lambda: clock[0])
  with metrics.Progress(start=10, num_steps=70) as progress:
    for step in range(11, 41):  # 1 s a step: a line at 15 s and at 30 s
      clock[0] += 1
      progress.update(step, {"loss": 2.5, "unwatched": 1.0})
  assert capsys.readouterr().err.splitlines() == [
    "step 25/70  loss 2.5  1/s  eta 00:45",
    "step 40/70  loss 2.5  1/s  eta 00:30",
  ]


def test_a_build_shows_its_blocks(capsys, monkeypatch):
  clock = [0.0]
  monkeypatch.setattr("time.monotonic", lambda: clock[0])
  with metrics.BlockProgress(done=40, total=100) as progress:
    for _ in range(2):
      clock[0] += 10
      progress.add(15, flops=7 * 10**10)
  assert capsys.readouterr().err.splitlines() == [
    "40 of 100 blocks are embedded already",
    "block 70/100  GFLOP/s 7  1.5/s  eta 00:20",
  ]
