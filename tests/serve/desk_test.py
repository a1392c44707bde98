"""Questions are answered together, by one version as a whole, or not at all."""

import threading
import time

import pytest

from realm_jax.config import InputError
from realm_jax.serve.desk import Busy, Where

A, B = Where("a"), Where("b", "4")


@pytest.fixture
def desk(parrots):
  desk = parrots.desk()
  desk.open(A)
  desk.start()
  return desk


def wait_for(true):
  for _ in range(1000):
    if true():
      return
    time.sleep(0.01)
  raise AssertionError("it never came")


def test_those_who_wait_are_answered_in_one_batch(desk, parrots):
  (parrot,) = parrots.opened
  parrot.go_on.clear()
  first = desk.ask("q0", A)
  wait_for(first.running)
  others = [desk.ask(f"q{i}", A) for i in range(1, 6)]
  parrot.go_on.set()
  answers = [future.result(9).answer for future in (first, *others)]
  assert answers == ["q0", "q1", "q2", "q3", "q4", "q5"]
  assert [len(batch) for batch in parrot.batches] == [1, 3, 2]


def test_no_more_wait_than_may_and_who_leaves_makes_room(desk, parrots):
  parrots.opened[0].go_on.clear()
  running = desk.ask("in work", A)
  wait_for(running.running)
  waiting = [desk.ask(f"q{i}", A) for i in range(5)]
  with pytest.raises(Busy):
    desk.ask("one more", A)
  assert waiting[2].cancel()
  last = desk.ask("now there is room", A)
  parrots.opened[0].go_on.set()
  assert last.result(9).answer == "now there is room"
  assert all("q2" not in batch for batch in parrots.opened[0].batches)


def test_a_question_that_fails_spoils_no_other(desk, parrots):
  parrots.opened[0].go_on.clear()
  desk.ask("first", A)
  asked = [desk.ask(q, A) for q in ("x", "divide by zero", "y")]
  parrots.opened[0].go_on.set()
  assert asked[0].result(9).answer == "x"
  assert asked[2].result(9).answer == "y"
  with pytest.raises(ZeroDivisionError, match="divide by zero"):
    asked[1].result(9)


def test_what_is_asked_elsewhere_is_opened_there(desk, parrots):
  answers = [desk.ask("x", where).result(9) for where in (B, A, B)]
  assert [x.run for x in answers] == ["b", "a", "b"]
  assert [x.index.version for x in answers] == [4, 1, 4]
  assert [parrot.where for parrot in parrots.opened] == [A, B]


def test_a_newer_version_is_taken_up_between_two_batches(desk, parrots):
  parrots.opened[0].go_on.clear()
  old = desk.ask("of the old one", A)
  wait_for(old.running)
  parrots.newest = 2
  wait_for(lambda: any("index 2" in note for note in parrots.notes))
  new = desk.ask("of the new one", A)
  parrots.opened[0].go_on.set()
  assert old.result(9).index.version == 1
  assert new.result(9).index.version == 2


def test_a_version_that_cannot_be_opened_leaves_the_old_one(desk, parrots):
  parrots.fail = InputError("7/c/0/0 is damaged")
  parrots.newest = 7
  wait_for(lambda: A in desk.troubles)
  assert desk.ask("x", A).result(9).index.version == 1
  assert parrots.notes == ["a: 7/c/0/0 is damaged"]  # once
  with pytest.raises(InputError, match="7/c/0/0 is damaged"):
    desk.ask("x", B).result(9)
  parrots.fail, parrots.newest = None, 8
  wait_for(lambda: A not in desk.troubles)
  assert desk.ask("x", A).result(9).index.version == 8


def test_a_run_that_is_moved_away_is_told_of_and_taken_up_again(desk, parrots):
  parrots.gone = InputError("run 'a': no such run")
  wait_for(lambda: A in desk.troubles)
  assert desk.ask("x", A).result(9).index.version == 1  # it is open still
  with pytest.raises(InputError, match="no such run"):
    desk.ask("x", B).result(9)
  assert sorted(parrots.notes) == [
    "a: run 'a': no such run", "b: run 'a': no such run",
  ]  # fmt: skip
  parrots.gone = None
  wait_for(lambda: A not in desk.troubles)
  assert desk.ask("x", B).result(9).run == "b"


def test_a_fault_in_opening_is_told_and_the_thread_lives(desk, parrots):
  parrots.fail = MemoryError("no room")
  with pytest.raises(InputError, match="cannot open it: no room"):
    desk.ask("x", B).result(9)
  parrots.fail = None
  assert desk.ask("x", B).result(9).run == "b"


def test_what_was_asked_longest_ago_is_closed(parrots):
  desk = parrots.desk(max_open=2)
  desk.open(A)
  desk.start()
  for index in ("1", "2", "1"):
    desk.ask("x", Where("b", index)).result(9)
  assert [parrot.where.index for parrot in parrots.opened] == [
    "",
    "1",
    "2",
    "1",
  ]
  assert desk.is_open(A) and not desk.is_open(Where("b", "2"))


def test_who_waits_at_the_end_is_told(parrots):
  desk = parrots.desk()
  future = desk.ask("x", A)  # nothing is open, and nobody at work
  desk.close()
  assert future.cancelled()


def test_so_many_batches_are_in_work_at_once(parrots):
  both = threading.Barrier(2)

  class Slow:
    def explain(self, questions):
      both.wait(9)  # breaks where one batch is all there is
      return questions

  parrots.open_one = lambda where: Slow()
  desk = parrots.desk(batch_size=1, at_once=2)
  desk.open(A)
  futures = [desk.ask(f"q{i}", A) for i in range(2)]
  desk.start()
  assert [future.result(20) for future in futures] == ["q0", "q1"]
