"""What keeps bad visitors from doing harm: limits before any question is read.

Only known hosts are answered (a page elsewhere can't reach this server by a name
of its own), nobody without the token where there is one, no body over a size, no
connection that takes its time. Every answer forbids the browser whatever the
page doesn't need.
"""

import asyncio
import dataclasses
import hmac
import ipaddress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

MIN_TOKEN = 16  # characters
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HEADERS = {
  "content-security-policy": (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'; require-trusted-types-for 'script'"
  ),
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


@dataclasses.dataclass(frozen=True)
class Limits:
  """How much one visitor may ask for.

  Attributes:
    body_bytes: of a request.
    question_characters: of a question.
    waiting: questions that wait.
    seconds: until a request is answered, or refused.
    connections: open at a time.
  """

  body_bytes: int = 64 * 1024
  question_characters: int = 2000
  waiting: int = 32
  seconds: float = 10.0
  connections: int = 256


class Guard:
  """ASGI middleware: host, token, size and time, and headers on all that goes out."""

  def __init__(
    self,
    app: ASGIApp,
    limits: Limits,
    hosts: tuple[str, ...],
    token: str = "",
  ):
    """Guards `app`.

    Args:
      app: what is asked once a request is let through.
      limits: of a request.
      hosts: names and addresses, without port, by which the server is reached.
      token: what a request to /api/ must carry; "": nothing.
    """
    self._app, self._limits = app, limits
    self._hosts, self._token = {h.lower() for h in hosts}, token

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers one request."""
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    send = _with_headers(send)
    refused = self._refuse(scope)
    if refused is None:
      body = await self._read(receive)
      if isinstance(body, bytes):
        await self._app(scope, _said_already(body), send)
        return
      refused = body
    await refused(scope, receive, send)

  def _refuse(self, scope: Scope) -> JSONResponse | None:
    headers = Headers(scope=scope)
    host = headers.get("host", "").lower()
    name = (
      host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    )
    if name not in self._hosts:
      return refusal(421, f"host {name[:80]!r} is none of this server's")
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > self._limits.body_bytes:
      return self._too_long()
    if self._token and scope["path"].startswith("/api/"):
      given = headers.get("authorization", "").removeprefix("Bearer ")
      if not hmac.compare_digest(given.encode(), self._token.encode()):
        more = {"www-authenticate": "Bearer"}
        return refusal(401, "this server wants its token", more)
    return None

  async def _read(self, receive: Receive) -> bytes | JSONResponse:
    """The body as a whole, or why it was not taken."""
    body = b""
    try:
      async with asyncio.timeout(self._limits.seconds):
        while True:
          message = await receive()
          body += message.get("body", b"")
          if len(body) > self._limits.body_bytes:
            return self._too_long()
          if not message.get("more_body"):
            return body
    except TimeoutError:
      return refusal(408, "the request took too long to come", _CLOSE)

  def _too_long(self) -> JSONResponse:
    most = self._limits.body_bytes // 1024
    return refusal(413, f"more than {most} kB: make it shorter", _CLOSE)


_CLOSE = {"connection": "close"}


def refusal(
  status: int, why: str, headers: dict[str, str] | None = None
) -> JSONResponse:
  """An answer of `status` that says why."""
  return JSONResponse({"error": why}, status, headers)


def timed_protocol(seconds: float) -> type[H11Protocol]:
  """HTTP/1.1 that cuts who takes longer than `seconds` from the first byte of
  a request to the last of its answer, or says nothing for so long."""

  class TimedProtocol(H11Protocol):
    def connection_made(self, transport: Any) -> None:
      super().connection_made(transport)
      self._timer = None
      self._arm()

    def data_received(self, data: bytes) -> None:
      if self._timer is None:
        self._arm()
      super().data_received(data)

    def on_response_complete(self) -> None:
      self._disarm()
      super().on_response_complete()
      if not self.cycle.response_complete:  # the next one was here already
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
      self._disarm()
      super().connection_lost(exc)

    def _arm(self) -> None:
      self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _disarm(self) -> None:
      if self._timer is not None:
        self._timer.cancel()
      self._timer = None

  return TimedProtocol


def check_address(
  address: str, hosts: tuple[str, ...], token: str
) -> str | None:
  """Why a server can't be bound to an address so; None: it can.

  Args:
    address: an IP address.
    hosts: names it is reached by, beside those of loopback.
    token: what its visitors must know.
  """
  try:
    loopback = ipaddress.ip_address(address).is_loopback
  except ValueError:
    return f"{address!r} is no IP address: give one, as 127.0.0.1"
  if loopback:
    return None
  if len(token) < MIN_TOKEN:
    return (
      f"{address} can be reached by others: set a token of {MIN_TOKEN}"
      " characters or more that they must know"
    )
  if not hosts:
    return f"{address} can be reached by others: say by which host names"
  return None


def _with_headers(send: Send) -> Send:
  async def call(message: Message) -> None:
    if message["type"] == "http.response.start":
      MutableHeaders(scope=message).update(_HEADERS)
    await send(message)

  return call


def _said_already(body: bytes) -> Receive:
  """The receive of an application whose request is here as a whole."""
  said = False

  async def call() -> Message:
    nonlocal said
    if said:
      return {"type": "http.disconnect"}
    said = True
    return {"type": "http.request", "body": body, "more_body": False}

  return call
