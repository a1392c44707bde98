"""Processes for the fault tests, started in milliseconds.

A server that has imported all there is forks one for each request, so that a
test can afford many. They are processes like any other: killed by SIGKILL, known
by their exit codes.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent.parent


class Process:
  """One that was forked."""

  def __init__(self, server: "Server", pid: int, log: pathlib.Path):
    self._server, self.pid, self._log = server, pid, log
    self.code = None

  def poll(self) -> int | None:
    """Its exit code, -9 if it was killed; None while it runs."""
    if self.code is None:
      self.code = self._server.ask({"poll": self.pid})
    return self.code

  def wait(self, seconds: float = 60.0) -> int:
    """Waits for its exit code: no longer than that after it last said a word,
    and no longer than five times that in all."""
    said, end = 0, time.monotonic() + seconds
    last = end + 4 * seconds
    while self.poll() is None:
      if (size := self._log.stat().st_size) != said:
        said, end = size, time.monotonic() + seconds
      assert time.monotonic() < min(end, last), (
        f"{self.pid} hangs:\n{self.log()}"
      )
      time.sleep(0.01)
    return self.code

  def send(self, number: int) -> None:
    """Sends a signal."""
    if self.poll() is None:
      os.kill(self.pid, number)

  def kill(self) -> None:
    """kill -9, and waits for the end."""
    self.send(signal.SIGKILL)
    self.wait()

  def log(self) -> str:
    """What it wrote."""
    return self._log.read_text()


class Server:
  """Forks processes that run functions of tests/faults/toy.py."""

  def __init__(self, folder: pathlib.Path):
    self._folder, self._count, self._all = folder, 0, []
    self._process = subprocess.Popen(
      [sys.executable, "-m", "tests.faults.forks"],
      cwd=ROOT,
      env=os.environ | {"PYTHONPATH": str(ROOT)},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def start(
    self, function: str, *args, fail_at: str = "", devices: int = 0, **kwargs
  ) -> Process:
    """Forks a process that calls toy.function(*args, **kwargs).

    Args:
      function: of toy.py.
      *args: words of it.
      fail_at: a fail point, "name:how".
      devices: that it simulates; 0: as many as this process.
      **kwargs: of the function, JSON.
    """
    env = {"REALM_FAILPOINT": fail_at}
    if devices:
      flag = f"--xla_force_host_platform_device_count={devices}"
      env["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    self._count += 1
    log = self._folder / f"{self._count}-{function}.log"
    log.touch()
    pid = self.ask(
      {"call": [function, list(map(str, args)), kwargs], "log": str(log),
       "env": env}
    )  # fmt: skip
    self._all.append(Process(self, pid, log))
    return self._all[-1]

  def ask(self, request):
    """The server's answer."""
    self._process.stdin.write(json.dumps(request) + "\n")
    self._process.stdin.flush()
    return json.loads(self._process.stdout.readline())

  def close(self) -> None:
    """Ends all of them."""
    for process in self._all:
      process.kill()
    self._process.stdin.close()
    self._process.wait()


def _serve() -> None:
  from tests.faults import toy

  answers = os.fdopen(os.dup(1), "w")
  for line in sys.stdin:
    request = json.loads(line)
    if "poll" in request:
      pid, status = os.waitpid(request["poll"], os.WNOHANG)
      answer = os.waitstatus_to_exitcode(status) if pid else None
    elif (answer := os.fork()) == 0:
      _run(toy, **request)
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _run(toy, call, log, env) -> None:
  """What a forked process does, up to its end."""
  import traceback

  from experiments import command

  out = os.open(log, os.O_WRONLY | os.O_CREAT)
  os.dup2(out, 1)
  os.dup2(out, 2)
  os.environ.update(env)
  function, args, kwargs = call
  try:
    with command.clean_exit():
      getattr(toy, function)(*args, **kwargs)
    code = 0
  except SystemExit as e:
    code = e.code or 0
  except BaseException:
    traceback.print_exc()
    code = 1
  sys.stderr.flush()
  os._exit(code)


if __name__ == "__main__":
  _serve()
