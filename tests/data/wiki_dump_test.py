import bz2
import gzip
import random
import re

import pytest

from realm_jax.config import InputError
from realm_jax.data import pages, wiki_dump
from tests.data.dumps import dump, page
from tests.formats.damage import little_memory

PAGES = [
  page(3, "Rome &amp; more", "[[City]] of hills."),
  page(5, "Talk:Rome", ns=1),
  page(7, "Roma", redirect='<redirect title="Rome" />'),
  page(8, "Old redirect", "#REDIRECT [[Rome]]"),
  page(9, "List of hills"),
  page(11, "Indexes of hills"),
  page(12, "Hill (disambiguation)"),
  page(14, "Aventine", "A hill."),
]
DUMP = dump(*PAGES)


@pytest.mark.parametrize(
  "name, pack",
  [
    ("d.xml", bytes),
    ("old.xml", lambda x: re.sub(rb' xmlns="[^"]*"', b"", x)),
    ("d.xml.bz2", bz2.compress),
    ("d.xml-p1p41242.bz2", bz2.compress),
    ("d.xml.gz", gzip.compress),
    ("many.xml.bz2", lambda x: bz2.compress(x[:99]) + bz2.compress(x[99:])),
  ],
)
def test_every_page_with_why_it_is_dropped(tmp_path, name, pack):
  path = tmp_path / name
  path.write_bytes(pack(DUMP))
  assert wiki_dump.is_dump(path)
  wiki_dump.check_end(path)
  found = list(wiki_dump.read_pages(path))
  assert [(p.id, p.title, p.dropped) for p in found] == [
    ("3", "Rome & more", ""),
    ("5", "Talk:Rome", pages.NAMESPACE),
    ("7", "Roma", pages.REDIRECT),
    ("8", "Old redirect", pages.REDIRECT),
    ("9", "List of hills", pages.LIST),
    ("11", "Indexes of hills", pages.LIST),
    ("12", "Hill (disambiguation)", pages.DISAMBIGUATION),
    ("14", "Aventine", ""),
  ]
  assert found[0].text == "[[City]] of hills."
  assert {"file", "datei", "kategorie"} <= set(found[0].hidden)
  assert not any(p.text for p in found if p.dropped)  # is not sent anywhere


@pytest.mark.parametrize("name", ["notes.xml.txt", "a.jsonl", "x.bz2", "axml"])
def test_other_names_are_no_dumps(tmp_path, name):
  assert not wiki_dump.is_dump(tmp_path / name)


@pytest.mark.parametrize("left", [0, 1, 40, 200, 900, len(DUMP) - 20])
def test_a_dump_that_was_cut_off_is_refused(tmp_path, left):
  path = tmp_path / "d.xml"
  path.write_bytes(DUMP[:left])
  for use in (wiki_dump.check_end, lambda x: list(wiki_dump.read_pages(x))):
    with pytest.raises(InputError, match=r"d\.xml: cut off") as e:
      use(path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("suffix, pack", [("bz2", bz2), ("gz", gzip)])
def test_what_was_compressed_and_cut_off_too(tmp_path, suffix, pack):
  path = tmp_path / f"d.xml.{suffix}"
  packed = pack.compress(DUMP)
  for left in (0, 20, len(packed) // 2, len(packed) - 1):
    path.write_bytes(packed[:left])
    with pytest.raises(InputError, match="cut off"):
      list(wiki_dump.read_pages(path))
    if suffix == "bz2":
      with pytest.raises(InputError, match="get the whole dump"):
        wiki_dump.check_end(path)


def test_the_end_mark_of_bz2_is_found_at_every_bit(tmp_path):
  path = tmp_path / "d.xml.bz2"
  for i in range(20):
    path.write_bytes(
      bz2.compress(DUMP + random.Random(i).randbytes(i).hex().encode())
    )
    wiki_dump.check_end(path)


def test_the_whole_pages_before_a_cut_are_counted(tmp_path):
  path = tmp_path / "d.xml"
  path.write_bytes(DUMP[: DUMP.index(b"Aventine")])
  reader = wiki_dump.read_pages(path)
  assert [next(reader).id for _ in range(7)][-1] == "12"
  with pytest.raises(InputError, match="after 7 whole pages"):
    next(reader)


def test_damage_is_named(tmp_path):
  path = tmp_path / "d.xml"
  path.write_bytes(DUMP.replace(b"<id>9", b"<id>\x00"))
  with pytest.raises(InputError, match=r"damaged after 4 whole pages .*line"):
    list(wiki_dump.read_pages(path))
  path.write_bytes(b"<html><body/></html>")
  with pytest.raises(InputError, match="not a MediaWiki dump, but <html>"):
    list(wiki_dump.read_pages(path))
  packed = bytearray(bz2.compress(DUMP))
  packed[len(packed) // 2] ^= 16
  (tmp_path / "d.xml.bz2").write_bytes(packed)
  with pytest.raises(InputError, match=r"d\.xml\.bz2: c"):
    list(wiki_dump.read_pages(tmp_path / "d.xml.bz2"))


def test_a_long_dump_takes_little_memory(tmp_path):
  path = tmp_path / "d.xml"
  path.write_bytes(
    dump(*[page(i, f"T{i}", "word " * 4000) for i in range(600)])
  )
  assert path.stat().st_size > 12e6
  with little_memory(4 << 20):
    assert sum(1 for _ in wiki_dump.read_pages(path)) == 600
