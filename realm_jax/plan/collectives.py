"""What a compiled program sends between the devices of a mesh."""

import math
import re
from typing import NamedTuple

_KINDS = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
_BITS = re.compile(r"\d+")


class Collective(NamedTuple):
  """One exchange.

  Attributes:
    kind: "all-gather", "all-reduce", ...
    sizes: elements of each array that a device has when it is done.
    bytes: of all of them.
  """

  kind: str
  sizes: tuple[int, ...]
  bytes: int


def collectives(hlo: str) -> list[Collective]:
  """Those of a program's text, one inside a loop once.

  Args:
    hlo: `jitted.lower(...).compile().as_text()`.
  """
  found = []
  for line in hlo.splitlines():
    match = re.search(rf" = (.*?) ({_KINDS})(-start)?\(", line)
    if not match:
      continue
    arrays = re.findall(r"([a-z]+\d+|pred)\w*\[([\d,]*)\]", match[1])
    sizes = [
      math.prod(int(n) for n in dims.split(",") if n) for _, dims in arrays
    ]
    widths = [max(int((_BITS.findall(t) or [8])[0]) // 8, 1) for t, _ in arrays]
    total = sum(n * w for n, w in zip(sizes, widths, strict=True))
    found.append(Collective(match[2], tuple(sizes), total))
  return found
