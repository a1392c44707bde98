"""How far the memory of this process rises (Linux)."""

import pathlib
from collections.abc import Callable


def risen(search: Callable[[], object]) -> float:
  """MB that the process's memory rises above what it is while it searches."""
  status, reset = (
    pathlib.Path("/proc/self") / x for x in ("status", "clear_refs")
  )
  reset.write_text("5")  # the high-water mark begins anew

  def read(key):
    line = next(x for x in status.read_text().splitlines() if x.startswith(key))
    return int(line.split()[1])  # kB

  before = read("VmRSS")
  search()
  return (read("VmHWM") - before) * 1024 / 1e6
