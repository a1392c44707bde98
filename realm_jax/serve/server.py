"""Serves the runs of a folder: opens what is asked most, then listens."""

import dataclasses
import os
import time
from collections.abc import Callable

import uvicorn

from realm_jax.config import InputError
from realm_jax.serve import limits as limiting
from realm_jax.serve.app import make_app
from realm_jax.serve.desk import Desk, Where
from realm_jax.serve.explain import Explainer
from realm_jax.serve.folder import Folder
from realm_jax.serve.limits import LOOPBACK_NAMES, Limits

TOKEN = "REALM_SERVE_TOKEN"  # in the environment: a command line can be read
_MOST_HEADERS = 16 * 1024  # bytes
_GRACE_SECONDS = 5  # beyond a request's time, after which it is cut
_KEEP_ALIVE_SECONDS = 5
_AT_ONCE = 2  # batches: one on the device, one being written out


@dataclasses.dataclass(frozen=True)
class Options:
  """Where and how to serve.

  Attributes:
    address, port: what to bind to; port 0 takes a free one.
    hosts: names by which it is reached, beside those of loopback.
    token: what visitors must know; needed beyond loopback.
    batch_size: questions answered at a time.
    limits: of a request.
  """

  address: str = "127.0.0.1"
  port: int = 8765
  hosts: tuple[str, ...] = ()
  token: str = ""
  batch_size: int = 8
  limits: Limits = dataclasses.field(default_factory=Limits)


def serve(
  workdir: str | os.PathLike, options: Options, note: Callable[[str], None]
) -> None:
  """Serves until it is interrupted.

  Args:
    workdir: of a run, or a folder of runs.
    options: where and how.
    note: is told how it comes on, a line at a time.

  Raises:
    InputError: no trained run, or an address that can't be bound to.
  """
  hosts = options.hosts
  if why := limiting.check_address(options.address, hosts, options.token):
    raise InputError(f"--config.address={why} (${TOKEN}, --config.hosts)")
  folder = Folder(workdir)
  desk = make_desk(folder, options, note)
  server = make_server(folder, desk, options, note)
  sock = _bind(server.config)
  desk.open(Where(folder.default))
  if folder.filler != folder.default:
    desk.open(Where(folder.filler))
  desk.start()
  host, port = sock.getsockname()[:2]
  note(f"serving {folder.path} at http://{host}:{port}/ (Ctrl-C ends)")
  try:
    server.run(sockets=[sock])
  finally:
    desk.close()


def make_desk(
  folder: Folder, options: Options, note: Callable[[str], None]
) -> Desk:
  """The desk that asks the runs of a folder."""

  def open_one(where: Where) -> Explainer:
    began = time.monotonic()
    explainer = Explainer(
      folder.find(where.run), options.batch_size, where.index, where.run
    )
    note(f"{where.run}: compiling for 1 and {options.batch_size} questions …")
    explainer.warm_up()
    note(f"{where.run}: ready after {time.monotonic() - began:.1f} s")
    return explainer

  return Desk(
    open_one,
    folder.newest,
    batch_size=options.batch_size,
    max_waiting=options.limits.waiting,
    at_once=_AT_ONCE,
    note=note,
  )


def make_server(
  folder: Folder, desk: Desk, options: Options, note: Callable[[str], None]
) -> uvicorn.Server:
  """The HTTP server, not yet listening."""
  limits = options.limits
  app = make_app(
    folder,
    desk,
    limits=limits,
    hosts=(*LOOPBACK_NAMES, *options.hosts),
    token=options.token,
    note=note,
  )
  return uvicorn.Server(
    uvicorn.Config(
      app,
      host=options.address,
      port=options.port,
      http=limiting.timed_protocol(limits.seconds + _GRACE_SECONDS),
      ws="none",
      log_level="error",  # what a visitor sends wrong is no news
      lifespan="off",
      log_config=None,
      access_log=False,
      proxy_headers=False,
      server_header=False,
      limit_concurrency=limits.connections,
      timeout_keep_alive=_KEEP_ALIVE_SECONDS,
      timeout_graceful_shutdown=_GRACE_SECONDS,
      h11_max_incomplete_event_size=_MOST_HEADERS,
    )
  )


def _bind(config: uvicorn.Config):
  try:
    return config.bind_socket()
  except SystemExit as e:  # uvicorn's way to say it
    raise InputError(
      f"--config.port={config.port}: {config.host} has no such port free: give"
      " another, or 0 for any"
    ) from e
