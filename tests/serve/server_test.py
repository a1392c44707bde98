"""The server on a real socket: slow clients are cut, and who may reach it."""

import asyncio
import contextlib
import http.client
import json
import random
import socket
import threading
import time

import pytest

from benchmarks import serve
from realm_jax.config import InputError
from realm_jax.serve import limits, server
from realm_jax.serve.folder import Folder


@contextlib.contextmanager
def serving(folder, parrots, seconds):
  """Serves with short patience; yields the port."""
  options = server.Options(port=0, limits=limits.Limits(seconds=seconds))
  desk = parrots.desk()
  desk.start()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(server, "_GRACE_SECONDS", 0.3)
    made = server.make_server(
      Folder(folder), desk, options, parrots.notes.append
    )
  sock = made.config.bind_socket()
  thread = threading.Thread(target=made.run, kwargs={"sockets": [sock]})
  thread.start()
  while not made.started:
    time.sleep(0.01)
  try:
    yield sock.getsockname()[1]
  finally:
    made.should_exit = True
    thread.join(20)
    sock.close()


@pytest.fixture
def port(untrained, parrots):
  with serving(untrained, parrots, seconds=0.4) as port:
    yield port


def post(port, body, path="/api/ask", kind="application/json"):
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=9)
  try:
    connection.request("POST", path, body, {"content-type": kind})
    answer = connection.getresponse()
    return answer.status, answer.read()
  finally:
    connection.close()


def seconds_until_cut(port, first, then=b""):
  """Sends `first`, then a byte now and again, until the server hangs up."""
  began = time.monotonic()
  with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
    s.sendall(first)
    s.settimeout(0.1)
    said = b""
    while time.monotonic() - began < 5:
      with contextlib.suppress(TimeoutError):
        try:
          if then:
            s.sendall(then)
          new = s.recv(4096)
        except (ConnectionResetError, BrokenPipeError):
          return time.monotonic() - began, said
        if not new:
          return time.monotonic() - began, said
        said += new
  raise AssertionError("it was never cut")


def test_it_answers_and_many_times_on_one_connection(port):
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=9)
  for number in range(3):
    time.sleep(0.3)  # all in all longer than a request may take
    body = json.dumps({"question": f"question {number}"})
    headers = {"content-type": "application/json"}
    connection.request("POST", "/api/ask", body, headers)
    answer = connection.getresponse()
    assert json.load(answer)["answer"] == f"question {number}"
    assert "server" not in answer.headers
  connection.close()


def test_who_says_nothing_is_cut(port):
  seconds, said = seconds_until_cut(port, b"")
  assert 0.5 < seconds < 3 and said == b""


def test_headers_that_trickle_are_cut(port):
  head = b"GET / HTTP/1.1\r\nHost: localhost\r\nx-slow: "
  seconds, said = seconds_until_cut(port, head, b"a")
  assert 0.5 < seconds < 3 and said == b""


def test_a_body_that_trickles_is_cut(port):
  head = (
    b"POST /api/ask HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
  )
  seconds, said = seconds_until_cut(port, head, b"a")
  assert seconds < 3
  assert said.startswith(b"HTTP/1.1 408 ")
  assert b"took too long to come" in said


def test_long_headers_are_refused(port):
  _, said = seconds_until_cut(port, b"GET /?" + b"x" * 40_000)
  assert said.startswith(b"HTTP/1.1 400 ")


def test_bytes_that_are_no_http(port, parrots):
  rng = random.Random(0)
  for _ in range(20):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
      s.sendall(rng.randbytes(300) + b"\r\n\r\n")
      with contextlib.suppress(ConnectionResetError):
        assert s.recv(4096)[:12] in (b"", b"HTTP/1.1 400")
  assert post(port, b'{"question": "still here"}')[0] == 200
  assert not any("question" in note for note in parrots.notes)


def test_fuzzed_requests_are_answered_without_a_fault(untrained, parrots):
  with serving(untrained, parrots, seconds=5.0) as port:
    said = asyncio.run(serve.fuzz(port, 250, seed=1))["answers"]
    assert asyncio.run(serve.inject(port)) == {
      "sent": 50, "came_back_as_text": 50
    }  # fmt: skip
  assert sum(said.values()) == 250
  assert {"200", "400", "404", "405", "413"} <= set(said)
  assert not any(code.startswith("5") for code in said)


def test_a_port_that_is_taken(untrained, port):
  options = server.Options(port=port)
  with pytest.raises(
    InputError, match=f"--config.port={port}: 127.0.0.1 has no"
  ):
    server.serve(untrained, options, print)


@pytest.mark.parametrize(
  ("options", "said"),
  [
    ({"address": "0.0.0.0"}, "0.0.0.0 can be reached by others: set a token"),
    ({"address": "::", "token": "short"}, "set a token of 16 characters"),
    ({"address": "0.0.0.0", "token": "x" * 16}, "say by which host names"),
    ({"address": "localhost"}, "'localhost' is no IP address"),
  ],
)  # fmt: skip
def test_beyond_loopback_it_wants_names_and_a_token(untrained, options, said):
  with pytest.raises(InputError, match=said):
    server.serve(untrained, server.Options(**options), print)


def test_addresses_that_are_fine():
  for address, hosts, token in (
    ("127.0.0.1", (), ""),
    ("127.9.9.9", (), ""),
    ("::1", (), ""),
    ("0.0.0.0", ("realm.example",), "x" * 16),
  ):
    assert limits.check_address(address, hosts, token) is None
