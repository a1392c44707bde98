"""Runs a command as one job of several processes on this machine's CPU.

  python launch/local_multiprocess.py -n 2 --devices 4 -- \\
    python -m experiments.pretrain --config=... --workdir=...

Each process has so many simulated devices. What process 0 prints is passed on;
of the others it is shown how they ended, if that was badly. SIGTERM and SIGINT
go to all of them as SIGTERM, after which they save and stop; the second one
kills. When one has failed the others have `--grace` seconds; the exit code is
that of the first failure.
"""

import argparse
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading


def main() -> int:
  parser = argparse.ArgumentParser(usage=__doc__)
  parser.add_argument("-n", type=int, default=2, help="processes")
  parser.add_argument("--devices", type=int, default=4, help="of each process")
  parser.add_argument("--grace", type=float, default=10.0, help="seconds")
  parser.add_argument("command", nargs="+")
  args = parser.parse_args()
  if min(args.n, args.devices) < 1:
    parser.error("wanted at least one process and one device")
  if not shutil.which(args.command[0]):
    parser.error(f"{args.command[0]}: no such command")
  address = f"127.0.0.1:{_free_port()}"
  with tempfile.TemporaryDirectory(prefix="realm_jax_") as logs:
    children = [
      _start(args, f"{address},{args.n},{i}", _log(logs, i))
      for i in range(args.n)
    ]
    _forward_signals(children)
    return _wait(children, args.grace, logs)


def _start(args, where: str, log: str | None) -> subprocess.Popen:
  flags = f"--xla_force_host_platform_device_count={args.devices}"
  env = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
    "REALM_PROCESSES": where,
  }
  # a session of its own: what is typed on the terminal comes through us
  options = {"env": env, "start_new_session": True}
  if log is None:
    return subprocess.Popen(args.command, **options)
  with open(log, "wb") as out:
    return subprocess.Popen(args.command, **options, stdout=out, stderr=out)


def _log(folder: str, process: int) -> str | None:
  return os.path.join(folder, str(process)) if process else None


def _forward_signals(children: list[subprocess.Popen]) -> None:
  seen = []

  def forward(number, frame):
    del number, frame
    seen.append(True)
    how = signal.SIGTERM if len(seen) == 1 else signal.SIGKILL
    for child in children:
      child.send_signal(how)

  signal.signal(signal.SIGTERM, forward)
  signal.signal(signal.SIGINT, forward)


def _wait(children: list[subprocess.Popen], grace: float, logs: str) -> int:
  """The exit code of the first that failed, 0 if none did."""
  ended = queue.Queue()

  def watch(i):
    ended.put((i, children[i].wait()))

  for i in range(len(children)):
    threading.Thread(target=watch, args=[i], daemon=True).start()
  first, killer = 0, None
  for _ in children:
    process, code = ended.get()
    if code and not first:
      first = code
      _say(f"process {process} ended with {code}; ending the others")
      _show_end(_log(logs, process), process)
      killer = threading.Timer(grace, _kill, [children])
      killer.daemon = True
      killer.start()
  return first if first >= 0 else 128 - first


def _kill(children: list[subprocess.Popen]) -> None:
  left = [i for i, child in enumerate(children) if child.poll() is None]
  for i in left:
    children[i].kill()
  if left:
    _say(f"killed process {', '.join(map(str, left))}, which did not end")


def _show_end(log: str | None, process: int) -> None:
  if log is None:
    return
  with open(log, errors="replace") as f:
    for line in f.readlines()[-20:]:
      print(f"[{process}] {line}", end="", file=sys.stderr)


def _say(text: str) -> None:
  print(f"local_multiprocess: {text}", file=sys.stderr, flush=True)


def _free_port() -> int:
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


if __name__ == "__main__":
  sys.exit(main())
