"""Where questions wait for the threads that answer them.

Questions to the same run and index version are answered together, in one call
of the jitted program. Some threads do that, so that the device works on one
batch while the text of another is written. What answers is opened, and compiled for, on a thread of
its own, and put in its place between two batches: an answer is always of one
version as a whole. As a run gets a newer index version, that one is opened in
the same way.
"""

import collections
import concurrent.futures
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from realm_jax.config import InputError
from realm_jax.serve.explanation import Explanation

_POLL_SECONDS = 0.5  # between two looks for newer index versions
_GONE = object()  # what is newest of a run that can't be looked at


class Answering(Protocol):
  """What the desk asks; serve.explain.Explainer is one."""

  def explain(self, questions: Sequence[str]) -> list[Explanation]:
    """Explains questions, in their order; InputError for one that can't be."""


class Where(NamedTuple):
  """What a question is asked of.

  Attributes:
    run: its name.
    index: number of an index version; "" for the newest.
  """

  run: str
  index: str = ""


class Busy(Exception):
  """As many questions wait as may."""


class _Asked(NamedTuple):
  question: str
  where: Where
  future: concurrent.futures.Future


class Desk:
  """Takes questions, has them answered in batches.

  Attributes:
    batch_size: most questions in one batch.
    troubles: {where: why it could not be opened, or not brought up to date}.
  """

  def __init__(
    self,
    open_one: Callable[[Where], Answering],
    newest: Callable[[str], object],
    *,
    batch_size: int,
    max_waiting: int,
    max_open: int = 4,
    at_once: int = 1,
    note: Callable[[str], None] = lambda text: None,
  ):
    """Begins with nothing open and no thread; see `start`.

    Args:
      open_one: opens a run's index version, ready to answer; InputError where
        it can't.
      newest: what changes as a run (by name) gets a newer index version.
      batch_size: most questions in one batch.
      max_waiting: most questions that wait, those in work not counted.
      max_open: most runs and versions that are open at a time.
      at_once: batches in work at a time.
      note: is told what happens to the index, a line at a time.
    """
    self.batch_size = batch_size
    self.troubles: dict[Where, str] = {}
    self._open_one, self._newest, self._note = open_one, newest, note
    self._max_waiting, self._max_open = max_waiting, max_open
    self._waiting: list[_Asked] = []
    self._open: collections.OrderedDict[Where, Answering] = (
      collections.OrderedDict()
    )
    self._seen: dict[Where, object] = {}
    self._changed = threading.Condition()
    self._closed = False
    self._threads = [
      threading.Thread(target=target, name=target.__name__, daemon=True)
      for target in (*[self._answer_all] * at_once, self._open_all)
    ]

  def start(self) -> None:
    """Starts the threads."""
    for thread in self._threads:
      thread.start()

  def close(self) -> None:
    """Ends them; who still waits is told."""
    with self._changed:
      self._closed = True
      self._changed.notify_all()
    for thread in self._threads:
      if thread.is_alive():
        thread.join(timeout=30)
    for asked in self._waiting:
      asked.future.cancel()

  def open(self, where: Where) -> None:
    """Opens what is asked most, before the first question.

    Raises:
      InputError: it can't be opened.
    """
    seen = self._newest(where.run)
    answering = self._open_one(where)
    with self._changed:
      self._open[where], self._seen[where] = answering, seen

  def is_open(self, where: Where) -> bool:
    """Whether a question there would be answered without an opening."""
    return where in self._open

  def ask(
    self, question: str, where: Where
  ) -> concurrent.futures.Future[Explanation]:
    """Puts a question in the queue; cancel the future to take it out.

    Raises:
      Busy: too many wait.
    """
    asked = _Asked(question, where, concurrent.futures.Future())
    with self._changed:
      self._waiting = [a for a in self._waiting if not a.future.cancelled()]
      if len(self._waiting) >= self._max_waiting:
        raise Busy
      self._waiting.append(asked)
      self._changed.notify_all()
    return asked.future

  def _answer_all(self) -> None:
    while True:
      with self._changed:
        self._changed.wait_for(lambda: self._closed or self._next() is not None)
        if self._closed:
          return
        where = self._next()
        batch = self._take(where)
        answering = self._open[where]
        self._open.move_to_end(where)
      if batch:
        _answer(answering, batch)

  def _next(self) -> Where | None:
    """Where the question that waits longest is asked, of those that are open."""
    return next((a.where for a in self._waiting if a.where in self._open), None)

  def _take(self, where: Where) -> list[_Asked]:
    same = [a for a in self._waiting if a.where == where][: self.batch_size]
    taken = {id(a) for a in same}
    self._waiting = [a for a in self._waiting if id(a) not in taken]
    return [a for a in same if a.future.set_running_or_notify_cancel()]

  def _open_all(self) -> None:
    while True:
      with self._changed:
        self._changed.wait_for(
          lambda: self._closed or self._wanted() is not None, _POLL_SECONDS
        )
        if self._closed:
          return
        wanted = self._wanted()
        to_renew = [where for where in self._open if not where.index]
      for where in to_renew if wanted is None else [wanted]:
        self._renew(where)

  def _wanted(self) -> Where | None:
    there = (a.where for a in self._waiting if not a.future.cancelled())
    return next((where for where in there if where not in self._open), None)

  def _renew(self, where: Where) -> None:
    """Opens what isn't open, or is of an older index version."""
    seen, began = _GONE, time.monotonic()
    try:
      seen = self._newest(where.run)
      if where in self._open and self._seen.get(where) == seen:
        return
      answering = self._open_one(where)
    except Exception as e:  # damaged, deleted meanwhile, too big: what is
      self._refuse(where, seen, e)  # open goes on, and the reason is told
      return
    with self._changed:
      self.troubles.pop(where, None)
      self._open[where], self._seen[where] = answering, seen
      self._drop_old(where)
      self._changed.notify_all()
    seconds = time.monotonic() - began
    self._note(f"{where.run}: index {where.index or seen}, {seconds:.1f} s")

  def _refuse(self, where: Where, seen: object, why: Exception) -> None:
    """What is open stays; nobody waits for what can't be opened."""
    said = str(why) if isinstance(why, InputError) else f"cannot open it: {why}"
    with self._changed:
      if self.troubles.get(where) != said:
        self._note(f"{where.run}: {said}")
      self.troubles[where] = said
      self._seen[where] = seen
      if where in self._open:
        return
      lost = [a for a in self._waiting if a.where == where]
      self._waiting = [a for a in self._waiting if a.where != where]
    for asked in lost:
      if asked.future.set_running_or_notify_cancel():
        asked.future.set_exception(InputError(said))

  def _drop_old(self, new: Where) -> None:
    """Closes what was asked longest ago, never what was opened first."""
    first = next(iter(self._seen))
    for where in list(self._open):
      if len(self._open) <= self._max_open:
        return
      if where not in (first, new):
        del self._open[where]


def _answer(answering: Answering, batch: Sequence[_Asked]) -> None:
  """Answers a batch; where one of its questions can't be, each by itself."""
  try:
    answers = answering.explain([asked.question for asked in batch])
  except Exception as e:  # the caller's, who waits on the future
    if len(batch) > 1:
      for asked in batch:
        _answer(answering, [asked])
    else:
      batch[0].future.set_exception(e)
    return
  for asked, answer in zip(batch, answers, strict=True):
    asked.future.set_result(answer)
