"""A directory of the reference's, and models with nothing compiled."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from realm_jax.models import convert
from realm_jax.pretrained import Pretrained, load_pretrained

REFERENCE = pathlib.Path(__file__).parents[1] / "testdata" / "reference"


@pytest.fixture(scope="session")
def reference():
  """The reference's directories: reference / "openqa"."""
  return REFERENCE


@pytest.fixture(scope="session")
def openqa():
  """The reference's RealmForOpenQA, loaded."""
  return load_pretrained(REFERENCE / "openqa")


@pytest.fixture(scope="session")
def drawn():
  """drawn(module) -> Pretrained with params of which no two are the same."""

  def make(module, seed=0):
    init = functools.partial(convert.fresh_params, module)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
      lambda x: rng.standard_normal(x.shape).astype(np.float32),
      jax.eval_shape(init, jax.random.key(0)),
    )
    return Pretrained(module.config, module, params)

  return make
