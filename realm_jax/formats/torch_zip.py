"""The zip archives of torch.save: nothing is compressed, so that the members
are parts of the mapped file."""

import pathlib
import struct
import zipfile
import zlib
from typing import NoReturn

import numpy as np

from realm_jax.config import InputError

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # magic, ..., len of name, of extra


class Archive:
  """The members of an archive below its one top directory.

  Raises (and so does `member`):
    InputError: no zip archive, one that torch did not write, a broken member.
  """

  def __init__(self, path: pathlib.Path, data: np.ndarray):
    self._path = path
    self._data = data
    try:
      with zipfile.ZipFile(path) as file:
        members = file.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error):
      self._refuse("neither a zip archive nor an older file of torch")
    self._members = {member.filename: member for member in members}
    if len(self._members) != len(members):
      self._refuse("a zip archive with a name twice")
    pickles = [n for n in self._members if n.endswith("/data.pkl")]
    if len(pickles) != 1:
      self._refuse("a zip archive without torch's data.pkl")
    self._top = pickles[0].removesuffix("data.pkl")

  def member(self, name: str) -> np.ndarray:
    """The bytes of a member, [size] uint8, a part of the mapped file."""
    info = self._members.get(self._top + name)
    if info is None:
      self._refuse(f"lacks {name[:80]!r}")
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
      self._refuse(f"{name[:80]!r} is compressed, as torch never does")
    start = info.header_offset
    header = self._data[start : start + _LOCAL_HEADER.size].tobytes()
    if len(header) < _LOCAL_HEADER.size:
      self._refuse(f"{name[:80]!r} is beyond its end")
    magic, name_len, extra_len = _LOCAL_HEADER.unpack(header)
    start += len(header)
    local = self._data[start : start + name_len].tobytes()
    if magic != b"PK\x03\x04" or local != info.filename.encode():
      self._refuse(f"{name[:80]!r} is not where the list of members says")
    start += name_len + extra_len
    body = self._data[start : start + info.file_size]
    if len(body) != info.file_size or info.file_size != info.compress_size:
      self._refuse(f"{name[:80]!r} ends early")
    if info.CRC not in (0, zlib.crc32(body)):  # 0: torch was told to leave it
      self._refuse(f"{name[:80]!r} differs from its checksum")
    return body

  def byteorder(self) -> str:
    """ "little" or "big"."""
    if self._top + "byteorder" not in self._members:  # torch < 2.1
      return "little"
    order = self.member("byteorder").tobytes()
    if order not in (b"little", b"big"):
      self._refuse(f"the byte order {order[:20]!r}")
    return order.decode()

  def _refuse(self, what: str) -> NoReturn:
    raise InputError(f"{self._path}: {what}: get the file again")
