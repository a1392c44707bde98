"""Rows of different lengths on disk: one flat .npy and one of offsets.

All that preparation makes is kept this way, so a corpus of any size is opened
by memory-mapping two files, and a batch of rows is one NumPy gather. Writers
append, so preparation never holds a corpus in memory.
"""

import array
import itertools
import mmap
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

_BUFFERED = 1 << 16  # values written at once


class FlatWriter:
  """Appends to a one-dimensional .npy file; the header is set at close."""

  def __init__(self, path: pathlib.Path, dtype: np.typing.DTypeLike):
    self._dtype = np.dtype(dtype)
    self._file = open(path, "wb")  # noqa: SIM115 - closed in close()
    self._buffer = array.array(self._dtype.char)
    self._count = 0
    self._write_header()

  def _write_header(self) -> None:
    # NumPy pads a header so that a growing first axis never changes its size.
    header = {
      "descr": np.lib.format.dtype_to_descr(self._dtype),
      "fortran_order": False,
      "shape": (self._count,),
    }
    self._file.seek(0)
    np.lib.format.write_array_header_1_0(self._file, header)

  def extend(self, values: Iterable[int]) -> None:
    self._buffer.extend(values)
    if len(self._buffer) >= _BUFFERED:
      self._flush()

  def extend_array(self, values: np.ndarray) -> None:
    """extend, of values that are an array already."""
    self._flush()
    self._count += len(values)
    self._file.write(np.ascontiguousarray(values, self._dtype).data)

  def _flush(self) -> None:
    self._count += len(self._buffer)
    self._file.write(self._buffer.tobytes())
    del self._buffer[:]

  def close(self) -> None:
    self._flush()
    self._write_header()
    self._file.close()


class RaggedWriter:
  """Appends rows to `directory/name.npy` and `directory/name.offsets.npy`."""

  def __init__(
    self, directory: pathlib.Path, name: str, dtype: np.typing.DTypeLike
  ):
    self._flat = FlatWriter(directory / f"{name}.npy", dtype)
    self._offsets = FlatWriter(directory / f"{name}.offsets.npy", np.int64)
    self._offsets.extend([0])
    self._end = 0

  def append(self, row: Sequence[int]) -> None:
    self._flat.extend(row)
    self._end += len(row)
    self._offsets.extend([self._end])

  def append_rows(self, rows: "Ragged", first: int, last: int) -> None:
    """Appends the rows first .. last - 1 of another."""
    offsets = rows.offsets[first : last + 1]
    self._flat.extend_array(rows.flat[offsets[0] : offsets[-1]])
    self._offsets.extend_array(offsets[1:] - offsets[0] + self._end)
    self._end += int(offsets[-1] - offsets[0])

  def append_text(self, text: str) -> None:
    self.append(array.array("B", text.encode()))

  def close(self) -> None:
    self._flat.close()
    self._offsets.close()


class Ragged:
  """Memory-mapped rows that a RaggedWriter wrote.

  Attributes:
    flat: all rows, one after the other.
    offsets: [rows + 1] int64; row i is flat[offsets[i]:offsets[i + 1]].
  """

  def __init__(self, directory: pathlib.Path, name: str):
    self.flat = open_array(directory / f"{name}.npy")
    self.offsets = open_array(directory / f"{name}.offsets.npy")

  def __len__(self) -> int:
    return len(self.offsets) - 1

  def __getitem__(self, row: int) -> np.ndarray:
    return self.flat[self.offsets[row] : self.offsets[row + 1]]

  def text(self, row: int) -> str:
    return self[row].tobytes().decode()

  def texts(self, first: int, last: int) -> Iterator[str]:
    """text of the rows first .. last - 1."""
    offsets = self.offsets[first : last + 1]
    offsets = (offsets - offsets[0]).tolist()
    begin = self.offsets[first]
    raw = self.flat[begin : begin + offsets[-1]].tobytes()
    return (raw[a:b].decode() for a, b in itertools.pairwise(offsets))

  def lens(self) -> np.ndarray:
    return np.diff(self.offsets)

  def will_need(self, rows: np.ndarray) -> None:
    """Tells the kernel of rows [n], in their order, that are read next.

    A row that is not in memory is read from the disk when it is touched, one
    after the other; of those it was told of, it reads many at a time.
    """
    if not len(rows):
      return
    mapped = self.flat.base.base  # of the array of np.memmap
    header = len(mapped) - self.flat.nbytes
    ends = self.offsets[[rows, rows + 1]] * self.flat.itemsize + header
    first, last = ends[0] // mmap.PAGESIZE, (ends[1] - 1) // mmap.PAGESIZE
    # neighbours in one go
    apart = first[1:] > last[:-1] + 1
    begins, over = first[np.append(True, apart)], last[np.append(apart, True)]
    for page, pages in zip(begins, over - begins + 1, strict=True):
      at, size = int(page) * mmap.PAGESIZE, int(pages) * mmap.PAGESIZE
      mapped.madvise(mmap.MADV_WILLNEED, at, size)


def open_array(path: pathlib.Path) -> np.ndarray:
  """Memory-maps a .npy file as a plain array (no memmap class in its way)."""
  return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def take_rows(
  flat: np.ndarray, starts: np.ndarray, lens: np.ndarray, width: int, fill: int
) -> np.ndarray:
  """Gathers flat[starts[b] : starts[b] + lens[b]] into rows of one width.

  Args:
    flat: one-dimensional values.
    starts: [B] first index of each row.
    lens: [B] values of each row; those beyond `width` are cut.
    width: length of a row of the result.
    fill: value right of a row's end.

  Returns:
    [B, width] int32.
  """
  columns = np.arange(width)
  if not len(flat):
    return np.full((len(starts), width), fill, np.int32)
  index = np.minimum(starts[:, None] + columns, len(flat) - 1)
  inside = columns < lens[:, None]
  return np.where(inside, flat[index].astype(np.int32), fill)
