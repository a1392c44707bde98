"""The page and its JSON API as an ASGI application.

Every path is written out here, and each file of the page is read once, at the
start: a path in a request never becomes a path on the disk. What
/openapi.json describes is what is here.
"""

import asyncio
import json
import pathlib
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from realm_jax.config import InputError
from realm_jax.serve.desk import Busy, Desk, Where
from realm_jax.serve.folder import Folder
from realm_jax.serve.limits import Guard, Limits, refusal

PAGE = pathlib.Path(__file__).parent / "page"
_TYPES = {
  ".html": "text/html",
  ".css": "text/css",
  ".js": "text/javascript",
  ".json": "application/json",
  ".svg": "image/svg+xml",
}
ASKED = {"question", "run", "index"}
_RETRY = {"retry-after": "1"}


def make_app(
  folder: Folder,
  desk: Desk,
  *,
  limits: Limits,
  hosts: tuple[str, ...],
  token: str = "",
  note: Callable[[str], None] = lambda text: None,
) -> Guard:
  """Makes the application.

  Args:
    folder: the runs.
    desk: answers questions about them.
    limits: of a request.
    hosts: names and addresses by which the server is reached.
    token: what a request to /api/ must carry; "": nothing.
    note: is told of a request that failed by a fault of ours.
  """
  answers = _Answers(folder, desk, limits)
  routes = [
    Route("/api/ask", answers.ask, methods=["POST"]),
    Route("/api/runs", answers.runs),
    Route("/api/curves", answers.curves),
    *(
      Route("/" if path.name == "index.html" else f"/{path.name}", _file(path))
      for path in sorted(PAGE.iterdir())
      if path.suffix in _TYPES
    ),
  ]

  async def failed(request: Request, error: Exception) -> Response:
    note(
      f"{request.method} {request.url.path}: {type(error).__name__}: {error}"
    )
    return refusal(500, "a fault of the server's; its log has more")

  app = Starlette(
    routes=routes,
    exception_handlers={
      HTTPException: _refuse_path,
      InputError: _refuse_input,
      OSError: _refuse_moved,
      Exception: failed,
    },
  )
  return Guard(app, limits, hosts, token)


class _Answers:
  """The endpoints of the API."""

  def __init__(self, folder: Folder, desk: Desk, limits: Limits):
    self._folder, self._desk, self._limits = folder, desk, limits

  async def ask(self, request: Request) -> Response:
    """POST {"question", ["run"], ["index"]} -> an explanation."""
    asked = _parse(
      await request.body(), request.headers.get("content-type", "")
    )
    question = _check_question(asked["question"], self._limits)
    run = asked.get("run") or self._folder.route(question)
    where = Where(run, str(asked.get("index", "")))
    await run_in_threadpool(self._folder.check, *where)
    try:
      future = self._desk.ask(question, where)
    except Busy:
      return refusal(503, "too many questions wait", _RETRY)
    try:
      async with asyncio.timeout(self._limits.seconds):
        answer = await asyncio.wrap_future(future)
    except TimeoutError:
      future.cancel()
      if not self._desk.is_open(where):
        return refusal(503, f"{run} is being opened", _RETRY)
      why = f"no answer within {self._limits.seconds:g} s"
      return refusal(503, why, _RETRY)
    return _json(answer.to_json())

  async def runs(self, request: Request) -> Response:
    """GET -> all runs, and how their configs differ."""
    folder = self._folder
    known = await run_in_threadpool(
      lambda: {
        "folder": folder.path.resolve().name,
        "default": folder.default,
        "filler": folder.filler,
        "runs": folder.describe(),
        "differences": folder.differences(),
      }
    )
    troubles = self._desk.troubles
    known["troubles"] = {w.run: why for w, why in troubles.copy().items()}
    return _json(known)

  async def curves(self, request: Request) -> Response:
    """GET ?run=NAME[&mark=M] -> its curves; 304 where they are still those."""
    name = request.query_params.get("run", "")
    read = await run_in_threadpool(self._folder.read_curves, name)
    if read["mark"] and read["mark"] == request.query_params.get("mark"):
      return Response(status_code=304)
    return _json(read)


def _json(value: Any) -> Response:
  return JSONResponse(value, headers={"cache-control": "no-store"})


def _file(path: pathlib.Path) -> Callable:
  content, kind = path.read_bytes(), _TYPES[path.suffix]

  async def answer(request: Request) -> Response:
    return Response(
      content, media_type=kind, headers={"cache-control": "no-cache"}
    )

  return answer


async def _refuse_path(request: Request, error: HTTPException) -> Response:
  return refusal(error.status_code, error.detail, dict(error.headers or {}))


async def _refuse_input(request: Request, error: InputError) -> Response:
  return refusal(400, str(error))


async def _refuse_moved(request: Request, error: OSError) -> Response:
  return refusal(503, "a file changed while it was read", _RETRY)


def _parse(body: bytes, content_type: str) -> dict[str, Any]:
  """The fields of a question.

  A form of another site can't send application/json: that is why it is wanted.
  """
  if content_type.partition(";")[0].strip().lower() != "application/json":
    raise HTTPException(415, "wanted content-type: application/json")
  try:
    asked = json.loads(body)
  except (ValueError, RecursionError) as e:
    raise InputError(
      f"the body is not JSON in UTF-8 ({type(e).__name__})"
    ) from e
  if not isinstance(asked, dict) or not isinstance(asked.get("question"), str):
    raise InputError('wanted {"question": "…"}')
  if unknown := asked.keys() - ASKED:
    raise InputError(f"unknown key {min(unknown)[:80]!r}: there are {_NAMES}")
  if not isinstance(asked.get("run", ""), str):
    raise InputError("run: wanted the name of a run")
  index = asked.get("index", "")
  if isinstance(index, bool) or not isinstance(index, int | str):
    raise InputError("index: wanted the number of an index version")
  return asked


_NAMES = ", ".join(sorted(ASKED))


def _check_question(question: str, limits: Limits) -> str:
  most = limits.question_characters
  if len(question) > most:
    raise InputError(
      f"a question of {len(question)} characters: at most {most} are read"
    )
  try:
    question.encode()
  except UnicodeEncodeError as e:
    raise InputError("the question is no text: it has half a character") from e
  if not any(c.isalnum() for c in question):
    raise InputError("the question has no word: write some")
  return question
