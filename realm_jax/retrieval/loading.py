"""An index version on its way into the host's memory, beside training."""

import pathlib
import threading
from concurrent.futures import Future
from typing import Any

from realm_jax import files
from realm_jax.retrieval import index


class Loading:
  """Reads and verifies a version in a thread that no ending process waits for.

  Attributes:
    version: its number.
    rows: Future of the rows [N, P] and the manifest; or of the InputError or
      OSError that came of it.
  """

  def __init__(
    self,
    run_dir: pathlib.Path,
    version: int,
    expect: dict[str, Any],
  ):
    self.version, self.rows = version, Future()
    self._args = run_dir, version, expect
    threading.Thread(target=self._run, daemon=True).start()

  def _run(self) -> None:
    try:
      files.fail_point("version_load")
      self.rows.set_result(index.read_version(*self._args))
    except BaseException as e:  # it is raised where the result is asked for
      self.rows.set_exception(e)
