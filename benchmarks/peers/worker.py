"""What every peer's script does: runs what it is told to and says how long it took.

It knows nothing of realm_jax: a peer has an environment of its own. Orders come
on stdin, answers go to stdout, one JSON object a line (see benchmarks/peer.py);
an answer's line begins with ANSWER, since libraries print as well.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np

ANSWER = "answer: "
# Runs one batch; what it returns makes the arrays to compare.
Program = Callable[[int], Callable[[], dict[str, np.ndarray]]]


def serve(about: str, programs: dict[str, Program]) -> None:
  """Answers orders until there are no more.

  Args:
    about: the peer and its versions, in words.
    programs: by name.
  """

  def say(answer):
    print(ANSWER + json.dumps(answer), flush=True)

  say({"about": about})
  for line in sys.stdin:
    order = json.loads(line)
    began = time.perf_counter()
    arrays = programs[order["run"]](order["batch"])
    seconds = time.perf_counter() - began
    if order["save"]:
      np.savez(order["save"], **arrays())
    say({"seconds": seconds})
