import numpy as np

from realm_jax.data import ragged


def test_rows_come_back(tmp_path):
  rows = [[3, 1], [], [70000, 5, 9]]
  writer = ragged.RaggedWriter(tmp_path, "x", np.int32)
  for row in rows:
    writer.append(row)
  writer.close()
  read = ragged.Ragged(tmp_path, "x")
  assert [read[i].tolist() for i in range(len(read))] == rows
  assert read.lens().tolist() == [2, 0, 3]


def test_texts_come_back(tmp_path):
  writer = ragged.RaggedWriter(tmp_path, "x", np.uint8)
  for text in ("Zürich", "", "月"):
    writer.append_text(text)
  writer.close()
  read = ragged.Ragged(tmp_path, "x")
  assert [read.text(i) for i in range(3)] == ["Zürich", "", "月"]


def test_no_rows(tmp_path):
  ragged.RaggedWriter(tmp_path, "x", np.int32).close()
  read = ragged.Ragged(tmp_path, "x")
  assert len(read) == 0
  none = np.zeros(2, int)
  assert (ragged.take_rows(read.flat, none, none, 3, 7) == 7).all()


def test_take_rows_against_slices():
  flat = np.arange(100, 120, dtype=np.uint16)
  starts, lens = np.array([0, 17, 5]), np.array([2, 3, 9])
  taken = ragged.take_rows(flat, starts, lens, 4, fill=-1)
  for row, a, n in zip(taken, starts, lens, strict=True):
    expected = (flat[a : a + n].tolist() + [-1] * 4)[:4]
    assert row.tolist() == expected
