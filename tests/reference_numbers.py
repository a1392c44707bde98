"""Models and numbers of the reference, and how ours are compared with them.

tests/oracle wrote them. REALM_ORACLES names another directory of such
checkpoints than the small ones that lie here (pytest -m "" takes them all).
Each model's calls are compiled as one program: that is what the tests' time
goes into.
"""

import functools
import os
import pathlib

import jax
import numpy as np
import pytest

import realm_jax

HERE = pathlib.Path(__file__).parent / "testdata" / "oracle"
PATHS = sorted(pathlib.Path(os.environ.get("REALM_ORACLES", HERE)).iterdir())
OUTPUT, GRADIENT = 1e-5, 3e-4  # of the largest value
ZERO = 1e-5  # of the largest gradient: below it, a gradient is rounding alone
SEQUENCES = ("input_ids", "attention_mask", "token_type_ids")
LOSSES = ("loss", "retriever_loss", "reader_loss")
SCORE = "relevance_score"

# All but the first take the same ways through the code: every night.
each = pytest.mark.parametrize(
  "path",
  [PATHS[0], *(pytest.param(p, marks=pytest.mark.nightly) for p in PATHS[1:])],
  ids=lambda p: p.name,
)


@functools.cache
def load(path, name):
  """A model and its io.npz."""
  model = realm_jax.load_pretrained(path / name)
  return model, dict(np.load(path / name / "io.npz"))


def close(got, want, name, tolerance=OUTPUT):
  got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
  if got.size == want.size == 1:  # documented as (), and given as (1,)
    got = got.reshape(want.shape)
  assert got.shape == want.shape, name
  scale = max(1e-6, np.abs(want).max(initial=0))
  error = np.abs(got - want).max(initial=0) / scale
  assert error <= tolerance, f"{name}: {error:.1e}"


def same(model, io, outputs, loss=None, score=None):
  """Compares stored arrays with what is computed from the model's params.

  Args:
    model: what was loaded.
    io: name -> what the reference computed.
    outputs: (params) -> {name: array}.
    loss: (params, score) -> (); its gradients are compared too.
    score: relevance_score, where the loss has a gradient in it.
  """

  def run(params, score):
    grads = loss and jax.grad(loss, (0, 1))(params, score)
    return outputs(params), grads

  got, grads = jax.jit(run)(model.params, score)
  for name, value in got.items():
    close(value, io[name], name)
  if loss:
    same_gradients(model, io, *grads)


def same_gradients(model, io, grads, of_score):
  want = {k[5:]: v for k, v in io.items() if k.startswith("grad/")}
  zero = ZERO * max(np.abs(v).max() for v in want.values())
  got = realm_jax.to_torch_state(model.module, grads)
  got[SCORE] = of_score
  compared = [k for k, v in want.items() if np.abs(v).max() > zero]
  assert len(compared) > 10
  for name in compared:
    grad = np.array(got[name])
    if name.endswith("word_embeddings.weight"):
      # torch drops the lookup gradient of padding_idx
      pad = model.config.pad_token_id
      grad[pad] = want[name][pad]
    close(grad, want[name], f"grad/{name}", GRADIENT)


def caller(model, given):
  """A call of the module with `given` arguments and more in their place."""

  def call(params, **more):
    return model.module.apply({"params": params}, **{**given, **more})

  return call
