"""The pace of a run: whose seconds are whose, by a clock that stands still."""

import collections

import pytest

from realm_jax.plan import device
from realm_jax.train import metrics, telemetry


@pytest.fixture
def clock(monkeypatch):
  seconds = [0.0]
  monkeypatch.setattr("time.monotonic", lambda: seconds[0])
  return seconds


def _land(meter, clock, step, seconds, **spent):
  clock[0] += seconds
  meter.landed(step, collections.Counter(spent))


def test_a_pause_is_no_steps_time(clock):
  meter = telemetry.Meter()
  for step, seconds in ((1, 9), (2, 3), (3, 5)):  # the first was compiled
    _land(meter, clock, step, seconds)
  assert meter.take({})["steps_per_second"] == 2 / (3 + 5)
  meter.pause(5)  # 4 and 5 were under way, and ended within
  clock[0] += 70
  for step, seconds in ((4, 0), (5, 0), (6, 1), (7, 6)):
    _land(meter, clock, step, seconds)
  figures = meter.take({"tokens": 30})
  assert figures["steps_per_second"] == 1 / 6
  assert figures["tokens_per_second"] == 30 / 6
  assert figures["step_seconds_p50"] == 5  # of 3, 5 and 6
  assert figures["step_seconds_p90"] == pytest.approx(5.8)
  assert meter.take({}) == {}


def test_what_was_spent_is_a_mean_over_steps(clock):
  meter, spent = telemetry.Meter(), telemetry.Spent()
  with spent.on("input"):
    clock[0] += 4
  meter.landed(1, spent.take())
  with spent.on("input"):
    clock[0] += 2
  with spent.on("checkpoint"):
    clock[0] += 5
  meter.landed(2, spent.take())
  figures = meter.take({})
  assert figures["input_seconds"] == 3
  assert figures["checkpoint_seconds"] == 2.5
  meter.landed(3, spent.take())
  assert "input_seconds" not in meter.take({})


def test_flops_are_counted_once_and_shared_by_the_devices(clock, monkeypatch):
  calls = []

  def count():
    calls.append(1)
    return 600, 30

  meter = telemetry.Meter(count, num_devices=3)
  for step in range(1, 4):
    _land(meter, clock, step, 2)
  figures = meter.take({})
  assert figures["model_flops_per_second"] == 300
  assert figures["search_flops_share"] == 0.05
  assert "mfu" not in figures
  monkeypatch.setattr(device, "peak_flops", lambda: 400.0)
  _land(meter, clock, 4, 1)
  assert meter.take({})["mfu"] == 600 / (3 * 400)
  assert calls == [1]
  assert figures.keys() <= set(metrics.TIMINGS)


def test_peaks_are_of_what_jax_calls_a_device():
  peaks = {
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA GB200": 2.5e15,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
  }
  assert {kind: device.peak_flops(kind) for kind in peaks} == peaks
  assert device.peak_flops("cpu") is None
  assert device.peak_flops() is None  # this machine's
