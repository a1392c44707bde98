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
    swap: what happened; has "step", how many steps were done by then.
  """
  swap = {"step": int(swap["step"])} | swap
  files.append_json_line(_journal(run_dir), swap)


def read_swaps(
  run_dir: str | os.PathLike, since: int = 0
) -> list[dict[str, Any]]:
  """The journal's lines; a last line torn by a crash is not there.

  Args:
    run_dir: the run's directory.
    since: only swaps after so many steps.

  Raises:
    InputError: a line is damaged.
  """
  swaps = files.read_json_lines(_journal(run_dir))
  return [s for s in swaps if s["step"] >= since]


def truncate_swaps(run_dir: str | os.PathLike, step: int) -> None:
  """Drops what a resume after `step` steps goes through again: swaps since then.

  A swap after `step` steps is none that their checkpoint has seen.
  """
  swaps = read_swaps(run_dir)
  kept = [s for s in swaps if s["step"] < step]
  if kept != swaps:
    with files.atomic_publish(_journal(run_dir)) as tmp:
      tmp.write_text("".join(json.dumps(s) + "\n" for s in kept))


def _journal(run_dir: str | os.PathLike) -> pathlib.Path:
  return pathlib.Path(run_dir) / "index" / "swaps.jsonl"
