"""The index's benchmark at a tiny size: every figure is there."""

import re

import pytest

from benchmarks import index, synthetic


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("words")
  config = synthetic.retriever_config(40, layers=1, hidden=16, block_len=31)
  synthetic.prepare_words(config, folder)
  synthetic.make_run(config, folder / "run", steps=[1])
  return folder / "run"


def test_build(workdir):
  lines = index.measure_build(workdir, rounds=1).splitlines()
  assert "widths 16, 31" in lines[0] and lines[1].endswith("widths 31")
  assert re.fullmatch(r"build: buckets are \d+\.\d\d times as fast", lines[2])


def test_disk(tmp_path):
  said = index.measure_disk(tmp_path, 300, rounds=1)
  rates = re.findall(r"(publish|verify|read) \d+ MB/s", said)
  assert rates == ["publish", "verify", "read"]


def test_update(workdir):
  said = index.measure_update(workdir, num_articles=3, updates=2)
  assert re.match(
    r"update: 3 articles added in [\d.]+ s, a rebuild of 40", said
  )
