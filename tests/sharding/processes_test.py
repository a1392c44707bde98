"""The step whose params are split over two real processes is one process's."""

import pathlib

import numpy as np
import pytest

from tests import launched
from tests.sharding import step_test

_RUN = pathlib.Path(__file__).with_name("fsdp_run.py")


@pytest.mark.nightly  # compiles a step in either process
def test_fsdp_over_two_processes(tmp_path):
  job = launched.start(str(_RUN), str(tmp_path), "1", "8", "1")
  code, said = launched.end(job, bound=400)
  assert code == 0, said
  gradients, metrics, _ = step_test.outcome("pretrain", step_test.ONE)
  for process in (0, 1):
    found = dict(np.load(tmp_path / f"{process}.npz"))
    figures = {f"metric {name}": value for name, value in metrics.items()}
    assert found.keys() == gradients.keys() | figures.keys()
    for name, value in gradients.items():
      limit = step_test.TOLERANCE * np.abs(value).max() + 1e-6
      np.testing.assert_allclose(found[name], value, atol=limit, err_msg=name)
    for name, value in figures.items():
      np.testing.assert_allclose(
        found[name], value, rtol=step_test.OF_FIGURES, atol=1e-6, err_msg=name
      )
