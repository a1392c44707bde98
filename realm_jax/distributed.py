"""Several processes as one job: joined, kept in step, ended together.

Arrays go their own way, through jit. What else the processes must agree on goes
through the key-value store of the job's coordinator, which needs no device: it
works from the first moment on, and is done with when process 0 is gone, so
nobody waits for a process that has ended.
"""

import contextlib
import itertools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax._src import distributed as jax_distributed

from realm_jax.config import InputError

_PATIENCE = 3600_000  # ms that a process waits for another one's work
_numbers = itertools.count()  # of meetings; the same in every process


def join(where: str) -> None:
  """Makes this one process of a job; to be called before a device is used.

  Args:
    where: "auto" for what JAX finds out by itself (SLURM, Open MPI, TPU pods,
      GKE), or "HOST:PORT,N,I": process I of N, 0 listening at HOST:PORT.

  Raises:
    InputError: anything else, or no such cluster.
  """
  try:
    if where == "auto":
      jax.distributed.initialize()
    else:
      address, count, index = where.split(",")
      jax.distributed.initialize(address, int(count), int(index))
  except (ValueError, IndexError) as e:
    raise InputError(
      f"REALM_PROCESSES={where}: wanted auto on a cluster that JAX knows, or"
      f" HOST:PORT,N,I for process I of N ({e})"
    ) from e


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
  """Around all that a process of a job does: an error ends it at once.

  JAX would first wait for the others, and they may be waiting for this one.
  """
  try:
    yield
  except SystemExit as e:
    if e.code:
      _exit(e.code if isinstance(e.code, int) else 1)
    raise
  except BaseException:
    traceback.print_exc()
    _exit(1)


def by_process_0(work: Callable[[], Any]) -> Any:
  """What `work` returns in process 0, the only one that does it, in all.

  To be called in every process, in the same order. All wait for the work, and
  all raise its InputError.

  Args:
    work: returns what JSON can hold.
  """
  if jax.process_count() == 1:
    return work()
  client = jax_distributed.global_state.client
  key = f"realm_jax/{next(_numbers)}"
  if jax.process_index():
    told = json.loads(client.blocking_key_value_get(key, _PATIENCE))
    if "error" in told:
      raise InputError(told["error"])
    return told["value"]
  try:
    value = work()
  except InputError as e:
    client.key_value_set(key, json.dumps({"error": str(e)}))
    raise
  client.key_value_set(key, json.dumps({"value": value}))
  return value


def of_all(value: Any) -> list[Any]:
  """What each process has come with, in all of them; in the processes' order.

  Args:
    value: what JSON can hold.
  """
  if jax.process_count() == 1:
    return [value]
  client = jax_distributed.global_state.client
  key = f"realm_jax/{next(_numbers)}"
  client.key_value_set(f"{key}/{jax.process_index():09}", json.dumps(value))
  client.wait_at_barrier(f"{key}/all", _PATIENCE)
  return [json.loads(v) for _, v in sorted(client.key_value_dir_get(key))]


def wait_for_all() -> None:
  """Returns when every process has come here."""
  if jax.process_count() > 1:
    client = jax_distributed.global_state.client
    client.wait_at_barrier(f"realm_jax/{next(_numbers)}", _PATIENCE)


def _exit(code: int) -> None:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
