"""The benchmark of refresh at a tiny size: what is counted, and a whole table."""

import pytest
from absl.testing import flagsaver

from benchmarks import refresh, synthetic
from configs import pretrain


@pytest.mark.nightly
def test_the_table_of_shares(tmp_path):
  config = pretrain.get_config("smoke")
  config.data.max_articles = 40
  synthetic.prepare_words(config, tmp_path)
  with flagsaver.flagsaver(shares=["0.3"], rounds=2, steps=1):
    lines = list(refresh.measure_shares(config, tmp_path / "run"))
  cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
  assert [row[0] for row in cells[2:]] == ["none", "share=0.3", "as configured"]
  none, share, configured = cells[2:]
  assert none[1:5] == ["0", "-", "0.0%", "0.0%"]
  assert float(share[3][:-1]) == pytest.approx(30, rel=0.1)
  assert int(share[1]) * int(share[2]) >= 40
  assert (configured[1], configured[2]) == ("32", "2")  # a slice for 40 blocks
