"""An index version on its way into the hosts' memory, beside training."""

import pathlib
import threading
from concurrent.futures import Future
from typing import Any

import numpy as np

from realm_jax import distributed, files
from realm_jax.config import InputError
from realm_jax.retrieval import index


class Loading:
  """Reads and verifies a version in a thread that no ending process waits for.

  Each process of a job has one, for rows first .. last - 1.

  Attributes:
    version: its number.
    first: the first row that this process reads.
    rows: Future of the rows [last - first, P] and the manifest; or of the
      InputError or OSError that came of it.
  """

  def __init__(
    self,
    run_dir: pathlib.Path,
    version: int,
    expect: dict[str, Any],
    first: int,
    last: int,
  ):
    self.version, self.first, self.rows = version, first, Future()
    self._args = run_dir, version, expect, first, last
    threading.Thread(target=self._run, daemon=True).start()

  def is_done(self) -> bool:
    """Whether every process has its rows, or an error; to be called in all."""
    return all(distributed.of_all(self.rows.done()))

  def result(self) -> tuple[np.ndarray, dict[str, Any]]:
    """Waits for this process's rows and the manifest; to be called in all.

    Raises:
      InputError: in every process, where one of them could not read its rows.
    """
    why = ""
    try:
      found = self.rows.result()
    except (InputError, OSError) as e:
      why = str(e)
    for reason in distributed.of_all(why):
      if reason:
        raise InputError(reason)
    return found

  def _run(self) -> None:
    try:
      files.fail_point("version_load")
      self.rows.set_result(index.read_version(*self._args))
    except BaseException as e:  # it is raised where the result is asked for
      self.rows.set_exception(e)
