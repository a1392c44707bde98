"""The journal of a run's swaps: which index version it searched since when.

RUN/index/swaps.jsonl has a line for each swap. A resumed run cuts it at its
checkpoint and writes the same lines again.
"""

import json
import os
import pathlib
from typing import Any

from realm_jax import files


def append_swap(run_dir: str | os.PathLike, swap: dict[str, Any]) -> None:
  """Appends a line to the journal, on the disk when this returns.

  Args:
    run_dir: the run's directory.
    swap: what happened; has "step", the first step that uses the new version.
  """
  swap = {"step": int(swap["step"])} | swap
  files.append_json_line(_journal(run_dir), swap)


def read_swaps(run_dir: str | os.PathLike) -> list[dict[str, Any]]:
  """The journal's lines; a last line torn by a crash is not there.

  Raises:
    InputError: a line is damaged.
  """
  return files.read_json_lines(_journal(run_dir))


def truncate_swaps(run_dir: str | os.PathLike, after_step: int) -> None:
  """Drops swaps of steps > after_step, as a resume at that step must."""
  swaps = read_swaps(run_dir)
  kept = [s for s in swaps if s["step"] <= after_step]
  if kept != swaps:
    with files.atomic_publish(_journal(run_dir)) as tmp:
      tmp.write_text("".join(json.dumps(s) + "\n" for s in kept))


def _journal(run_dir: str | os.PathLike) -> pathlib.Path:
  return pathlib.Path(run_dir) / "index" / "swaps.jsonl"
