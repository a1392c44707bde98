"""Which kind of device a program is made for: the one that is here, or the one
that a plan or a compilation is for."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_PLANNED = contextvars.ContextVar("planned", default="")


def name() -> str:
  """ "cpu", "gpu" or "tpu"."""
  return _PLANNED.get() or jax.default_backend()


@contextlib.contextmanager
def planned(kind: str) -> Iterator[None]:
  """Has programs made for another kind of device; "" for the one here.

  For what is traced or compiled and never run.
  """
  token = _PLANNED.set(kind)
  try:
    yield
  finally:
    _PLANNED.reset(token)
