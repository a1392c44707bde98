"""The benchmark at a tiny size: counts beside the compiler's, a whole table."""

import pathlib

import pytest

from benchmarks import step, synthetic
from configs import pretrain
from realm_jax.config import InputError

_PARTS = (
  "embed queries",
  "search",
  "embed candidates",
  "encoder layers",
  "MLM head",
  "optimizer",
  "embed index slice",
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  folder = tmp_path_factory.mktemp("words")
  config = pretrain.get_config("smoke")
  config.data.max_articles = 40
  config.encoder.num_hidden_layers = 2
  synthetic.prepare_words(config, folder)
  return step.measure(config, folder, rounds=2)


@pytest.mark.nightly
def test_counts_are_the_compilers(measured):
  """The compiler adds what is no product: a few per cent at larger sizes."""
  for name in ("embed candidates", "encoder layers", "MLM head"):
    ratio = measured.compiled[name] / measured.counted[name]
    assert 0.95 < ratio < 1.25, (name, ratio)
  reader = measured.counted["encoder layers"] + measured.counted["MLM head"]
  more = measured.counted["everywhere"] - reader
  by_compiler = measured.compiled["everywhere"] - measured.compiled["step"]
  assert more / by_compiler == pytest.approx(1, abs=0.15)


@pytest.mark.nightly
def test_what_is_measured(measured):
  assert set(measured.seconds) == {*_PARTS, "step", "everywhere", "peak"}
  assert all(s.shape == (2,) and s.min() > 0 for s in measured.seconds.values())
  assert set(measured.padding) <= set(_PARTS)
  assert all(0 < share < 1 for share in measured.padding.values())


@pytest.mark.nightly
def test_the_table(measured):
  lines = step.report(measured).splitlines()
  assert "B=4 K=4 Q=24 C=32 L=40 M=5 N=40 V=1024" in lines[0]
  cells = {line[:18].strip(): line[18:].split() for line in lines[2:12]}
  assert list(cells)[1:] == [*_PARTS, "step", "the rest"]
  assert all(len(cells[name]) == 6 for name in (*_PARTS, "step"))
  shares = [float(cells[name][-1][:-1]) for name in (*_PARTS, "the rest")]
  assert sum(shares) == pytest.approx(100, abs=5)  # rounded
  assert cells["step"][-1] == "100%"


def test_a_step_that_searches_nothing_is_refused():
  config = pretrain.get_config("smoke")
  config.evidence = "own"
  with pytest.raises(InputError, match="evidence='own'"):
    step.measure(config, pathlib.Path("nowhere"))
