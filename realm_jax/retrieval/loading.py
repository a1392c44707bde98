"""An index version on its way into the host's memory, beside training."""

import pathlib
import threading
from concurrent.futures import Future
from typing import Any

import numpy as np

from realm_jax import files
from realm_jax.retrieval import index


class Loading:
  """Reads and verifies a version in a thread that no ending process waits for.

  Attributes:
    version: its number.
    rows: Future of the rows [N, P], padded to those of the live index, and the
      manifest; or of the InputError or OSError that came of it.
  """

  def __init__(
    self,
    run_dir: pathlib.Path,
    version: int,
    expect: dict[str, Any],
    num_rows: int,
  ):
    self.version, self.rows = version, Future()
    self._args = run_dir, version, expect
    self._num_rows = num_rows
    threading.Thread(target=self._run, daemon=True).start()

  def _run(self) -> None:
    try:
      files.fail_point("version_load")
      block_emb, made = index.read_version(*self._args)
      padding = ((0, self._num_rows - len(block_emb)), (0, 0))
      self.rows.set_result((np.pad(block_emb, padding), made))
    except BaseException as e:  # it is raised where the result is asked for
      self.rows.set_exception(e)
