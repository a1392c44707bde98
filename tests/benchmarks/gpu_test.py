"""What is measured on a GPU: the table at toy sizes, the rates, the script."""

import pathlib
import re
import types

import numpy as np
import pytest

from benchmarks import gpu, gpu_programs, scaling, synthetic
from configs import pretrain
from realm_jax.config import InputError
from realm_jax.plan.cost import Cost
from realm_jax.plan.hardware import Hardware

SCRIPT = pathlib.Path(gpu.__file__).parent / "gpu_all.sh"


class Flags(dict):
  """Stands for flags.FLAGS."""

  def __getitem__(self, name):
    return type("Flag", (), {"value": self.get(name)})


def test_the_script_ends_in_time():
  text = SCRIPT.read_text()
  (seconds,) = re.findall(r"timeout (\d+)", text)
  measures = re.search(r"for measure in (.*);", text)[1].split()
  assert set(measures) == set(gpu.measures(toy=False))
  assert int(seconds) * len(measures) < 9 * 60


def test_rates_of_the_device():
  assert gpu.hardware("", "") is None  # of a CPU
  given = gpu.hardware("2e12", "30GB")
  assert (given.flops, given.bandwidth) == (2e12, 30e9)
  with pytest.raises(InputError, match="go together"):
    gpu.hardware("2e12", "")


@pytest.mark.parametrize(
  ("kind", "name"),
  [
    ("NVIDIA H100 80GB HBM3", "H100 SXM 80 GB"),
    ("NVIDIA H200", "H200 SXM"),
    ("NVIDIA H100 PCIe", None),  # it does and moves less than an SXM
  ],
)
def test_rates_are_those_of_the_very_card(monkeypatch, kind, name):
  here = types.SimpleNamespace(device_kind=kind)
  monkeypatch.setattr(gpu.jax, "devices", lambda: [here])
  found = gpu.hardware("", "")
  assert (found and found.name) == name


def test_attention_by_what_runs_here(monkeypatch):
  def attends():
    return {
      k: c.attention for k, c in gpu_programs.configs(gpu_programs.TOY).items()
    }

  assert attends() == {"ours": "xla"}
  monkeypatch.setattr("jax.default_backend", lambda: "gpu")
  assert attends() == {"ours": "xla", "ours, cudnn": "cudnn"}
  assert list(gpu_programs.configs(gpu_programs.BASE)) == list(attends())


def test_the_table():
  lines = {
    "ours": gpu_programs.Line(None, 6, Cost(4_000_000_000_000, 9), times=2)
  }
  # of two times each
  seconds = {"ours": np.array([4.0, 8, 6]), "torch": np.array([12.0, 16, 24])}
  rates = Hardware("X", "gpu", None, 2e12, 3e9)
  _, ours, torch, last = gpu._table(lines, seconds, rates)
  assert ours.split() == ["ours", "3000.00", "1.00", "2", "1.33", "67%", "1.5"]
  assert torch.split() == ["torch", "8000.00", "3.00", "1", "0.5", "25%", "4.0"]
  assert last.startswith("X: 2e+12")


@pytest.mark.nightly
@pytest.mark.parametrize("measure", list(gpu.measures(toy=True)))
def test_every_measure_runs(measure):
  lines = gpu.report(measure, True, "/nowhere/python", 2).splitlines()
  assert lines[0].startswith(f"{measure}: ")
  assert lines[1].startswith(("no torch", "no peer"))
  cells = re.split("  +", lines[4])
  assert cells[2] == "1.00"  # its ratio to itself


def test_sizes_of_a_growth():
  f = Flags(rows=["900", "70"], k=["3", "5"])
  assert scaling.sizes_of(f, 5) == [(900, 5), (70, 5), (900, 3)]
  for wrong in ({"rows": ["9x"]}, {"k": ["80"]}, {"rows": []}, {"k": ["0"]}):
    with pytest.raises(InputError, match="--rows"):
      scaling.sizes_of(Flags(f | wrong), 5)


@pytest.mark.nightly
def test_the_growth(tmp_path):
  config = pretrain.get_config("smoke")
  config.data.max_articles = 40
  synthetic.prepare_words(config, tmp_path)
  wanted = [scaling.Size(40, 4), scaling.Size(300, 4), scaling.Size(40, 3)]
  lines = scaling.report(config, tmp_path, wanted, rounds=2).splitlines()
  names = [" ".join(line.split()[:2]) for line in lines[3:6]]
  assert names == ["N=40 K=4", "N=300 K=4", "N=40 K=3"]
  assert lines[3].split()[3] == "1.00"
  assert "64" in lines[-1] and "one width" in lines[-1]
