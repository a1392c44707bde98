"""The journal of swaps: torn and damaged lines, and its end cut off."""

import json

import pytest

from realm_jax.config import InputError
from realm_jax.retrieval import journal


def test_journal_survives_a_torn_line(tmp_path):
  assert journal.read_swaps(tmp_path) == []
  swaps = [{"step": 5, "version": 1}, {"step": 9, "version": 2}]
  journal.append_swap(tmp_path, swaps[0])
  path = tmp_path / "index/swaps.jsonl"
  with open(path, "a") as f:
    f.write('{"step": 9, "ver')
  assert journal.read_swaps(tmp_path) == swaps[:1]
  journal.append_swap(tmp_path, swaps[1])
  assert journal.read_swaps(tmp_path) == swaps
  assert [json.loads(x) for x in path.read_text().splitlines()] == swaps
  assert journal.read_swaps(tmp_path, since=9) == swaps[1:]
  journal.truncate_swaps(tmp_path, 9)  # a checkpoint of step 9 came before it
  assert journal.read_swaps(tmp_path) == swaps[:1]


def test_a_damaged_journal_is_named(tmp_path):
  journal.append_swap(tmp_path, {"step": 5})
  path = tmp_path / "index/swaps.jsonl"
  path.write_text("nonsense\n" + path.read_text())
  with pytest.raises(InputError, match=r"swaps.jsonl:1 is damaged"):
    journal.read_swaps(tmp_path)
