import time

import pytest

from realm_jax.data import wiki_text

CASES = {
  "links": (
    "'''Rome''' is a [[city]] in [[Italy|the ''Republic'']], [[:File:x]].",
    "Rome is a city in the Republic, :File:x.",
  ),
  "files and categories": (
    "[[File:a.jpg|thumb|A [[nested]] caption]]Text.\n[[category:Cities]]"
    "[[Datei:b.png]]",
    "Text.",
  ),
  "references": (
    'One.<ref name="a" /> Two.<ref>{{cite|x}} <b>y</b></ref> Three.<ref name=b>z'
    "</REF>",
    "One. Two. Three.",
  ),
  "an open reference takes nothing": (
    "One.<ref>kept. Two.<ref>gone</ref>\nThree.",
    "One.kept. Two.\nThree.",
  ),
  "templates": (
    "{{Infobox|a={{b}}|c=[[d]]}}It is {{convert|5|km|mi}} from {{lang|fr|Lyon}}"
    ", {{nowrap|a b}}.",
    "It is 5 km from Lyon, a b.",
  ),
  "what templates leave in parentheses": (
    "Algeria ({{lang-ar|x}}; {{IPA|y}}, 1962) and Oran ({{IPA|z}}) are.",
    "Algeria (x, 1962) and Oran are.",
  ),
  "tables": ('A.\n{| class="wikitable"\n|-\n! h || i\n|-\n| j || k\n|}\nB.', "A.\nB."),
  "lists and headings": (
    "== Life ==\nProse.\n* one\n** two\n# three\n; four\n: five\nMore.",
    "Prose.\nMore.",
  ),
  "sections at the end": (
    "A.\n== See also ==\nB.\n=== x ===\nC.\n== Later ==\nD.\n==References==\nE.",
    "A.\nD.",
  ),
  "comments and magic words": ("A<!-- b\n -->c. __NOTOC__\nd.<!-- e", "Ac.\nd."),
  "entities": ("R&amp;D &ndash; 5&nbsp;km &#8212; x", "R&D – 5 km — x"),
  "external links": ("See [http://a.b the page] http://c.d now.", "See the page now."),
  "tags": (
    "H<sub>2</sub>O<br />x <math>\\frac{1}</math>y <nowiki>z</nowiki>w",
    "H2O\nx y zw",
  ),
  "scripts": ("日本は[[東京|東京都]]。 שלום 🏛️ é", "日本は東京都。 שלום 🏛️ é"),
  "nothing": ("{{empty}}", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_a_reader_sees(name):
  markup, text = CASES[name]
  hidden = ("file", "datei", "category")
  assert wiki_text.plain_text(markup, hidden)[0] == text


@pytest.mark.parametrize(
  "markup, num_broken",
  [
    ("Good.\nBad {{open [[x.\nGood.", 1),
    ("Good.\nBad <div open.\n Bad ]] too.\nGood.", 1),
    ("{| open\n| table\nGood.", 1),
    ("'''''a''b'''c'' ok", 0),
    ("{{{{{{" * 400, 1),
    ("[[" * 300, 1),
    ("<div>" * 200 + "deep", 1),
  ],
)
def test_broken_markup_is_dropped_by_the_line(markup, num_broken):
  text, found = wiki_text.plain_text(markup)
  assert not set(text) & set("{}|[]<>")
  assert found >= num_broken


@pytest.mark.parametrize(
  "markup, is_one",
  [
    ("x may be: {{disambig}}", True),
    ("{{Disambiguation|geo|surname}}", True),
    ("{{ human name disambiguation }}", True),
    ("{{hndis|Smith}}", True),
    ("__DISAMBIG__", True),
    ("[[a]]{{disambiguation needed}}", False),
    ("{{distinguish|b}} the disambiguation page", False),
    ("{{other uses}}", False),
  ],
)
def test_disambiguation_pages(markup, is_one):
  assert wiki_text.is_disambiguation(markup) == is_one


@pytest.mark.parametrize(
  "markup", ["<ref>" * 20_000, "(" + ",;" * 50_000, "<!--" * 20_000, "<" * 9999]
)
def test_hostile_markup_takes_no_time(markup):
  began = time.process_time()
  wiki_text.plain_text(markup)
  assert time.process_time() - began < 10  # quadratic: minutes
