"""Other people's code to measure beside, in an environment of its own.

Hugging Face's REALM (--peer=hf), as a Python 3.11 takes it:

  python3.11 -m venv PEER
  PEER/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu
  PEER/bin/pip install transformers==4.34.0 "numpy<2"
  python -m benchmarks.step --peer=hf --peer_python=PEER/bin/python
  python -m benchmarks.embed --peer=hf --peer_python=PEER/bin/python

The peer is a process that waits for its turn (benchmarks/peers/); weights and
batches go over as files. It has this process's environment, so the allocator's
settings that our commands set (GLIBC_TUNABLES) as well, and as many threads.
"""

import contextlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping

import numpy as np
from absl import flags

from benchmarks.peers.worker import ANSWER
from realm_jax.config import InputError

_SCRIPTS = pathlib.Path(__file__).parent / "peers"


def define_flags(scripts: Mapping[str, str]) -> None:
  """--peer, one of `scripts`' names or "", --peer_python and --threads."""
  names = ["", *scripts]
  flags.DEFINE_enum("peer", "", names, "whom to measure beside")
  flags.DEFINE_string(
    "peer_python", sys.executable, "the peer's Python, see benchmarks/peer.py"
  )
  flags.DEFINE_integer("threads", 2, "processors for ours and for the peer")


class Peer:
  """A peer at work.

  Attributes:
    about: its name and versions.
  """

  def __init__(self, process: subprocess.Popen, python: str):
    self._process, self._python = process, python
    self.about = self._answer()["about"]

  def run(self, name: str, batch: int, save: pathlib.Path | None = None):
    """Seconds of one run by the peer's clock, or its arrays if they are saved.

    Args:
      name: of the peer's program.
      batch: its number.
      save: an .npz for what the program found.
    """
    order = {"run": name, "batch": batch, "save": save and str(save)}
    with contextlib.suppress(BrokenPipeError):  # `_answer` says so
      print(json.dumps(order), file=self._process.stdin, flush=True)
    seconds = self._answer()["seconds"]
    if save is None:
      return seconds
    with np.load(save) as arrays:
      return dict(arrays)

  def _answer(self):
    for line in self._process.stdout:
      if line.startswith(ANSWER):
        return json.loads(line.removeprefix(ANSWER))
    raise InputError(
      f"--peer_python={self._python}: the peer ended, see above; its packages"
      " are listed in benchmarks/peer.py"
    )


@contextlib.contextmanager
def started(
  script: str, python: str, folder: pathlib.Path, *words: object
) -> Iterator[Peer]:
  """Starts a script of benchmarks/peers on a folder; it ends with the block.

  Raises:
    InputError: there is no such Python, or it lacks packages.
  """
  command = [
    python,
    "-W",
    "ignore",
    str(_SCRIPTS / script),
    str(folder),
    *map(str, words),
  ]
  try:
    process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
  except OSError as e:
    raise InputError(
      f"--peer_python={python}: {e.strerror}: give the Python of an environment"
      " made as benchmarks/peer.py says"
    ) from e
  with process:
    try:
      yield Peer(process, python)
    finally:
      with contextlib.suppress(BrokenPipeError):
        process.stdin.close()  # no more orders: it ends by itself
