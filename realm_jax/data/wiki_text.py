"""Wiki markup to the prose of an article, one paragraph a line.

What is no prose goes, as in the corpus of the original (WikiExtractor): tables,
templates, references, files, categories, headings, lists, and the sections at
the end that hold nothing else. mwparserfromhell parses; it takes any text, and
what is still markup afterwards is broken.
"""

import re
from collections.abc import Iterable, Iterator

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.parser import ParserError
from mwparserfromhell.wikicode import Wikicode

from realm_jax.data import pages

# Cut out before parsing, which takes most of its time for them. References may
# hold anything but references.
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_REFERENCE = re.compile(
  r"<ref\b[^<>]*/>|<ref\b[^<>]*>[^<]*(?:<(?!/?ref\b)[^<]*)*</ref\s*>",
  re.IGNORECASE,
)
# One that does not end. The parser's time is the square of their number.
_OPEN_REFERENCE = re.compile(r"<ref\b[^<>]*>", re.IGNORECASE)
_END_SECTION = re.compile(
  r"^==\s*(?:see also|references|notes|footnotes|citations|bibliography"
  r"|sources|further reading|external links|notes and references"
  r"|references and notes|works cited|gallery)\s*==\s*$.*?(?=^==[^=]|\Z)",
  re.DOTALL | re.IGNORECASE | re.MULTILINE,
)
_DISAMBIGUATION = re.compile(
  r"\{\{\s*(?:disambig\w*(?:[ _]page)?|disamb|dab|dis|hndis|geodis|numberdis"
  r"|letter-numbercombdisambig|[\w ,-]+[ _]disambiguation)\s*(?:\||\}\})"
  r"|__DISAMBIG__",
  re.IGNORECASE,
)
_GONE_TAGS = frozenset(
  "ref references table tr td th caption gallery math chem ce timeline score"
  " imagemap graph hiero section templatedata categorytree inputbox source"
  " syntaxhighlight style script mapframe maplink noinclude includeonly".split()
)
_BREAKS = frozenset(("br", "hr", "p", "div", "blockquote", "center", "poem"))
# Templates that stand inside a sentence -> which of their parameters show.
_SHOWN = {
  "lang": ("2",),
  "transl": ("3", "2"),
  "transliteration": ("3", "2"),
  "nowrap": ("1",),
  "nobr": ("1",),
  "small": ("1",),
  "smaller": ("1",),
  "nihongo": ("1",),
  "circa": ("1",),
  "c.": ("1",),
  "as of": ("1",),
}
_CONVERT = frozenset(("convert", "cvt"))
_LINK_PREFIX = re.compile(r"\s*:?\s*([^:|\]]+?)\s*:")
_LIST_LINE = re.compile(r"[*#;:]")
_MAGIC = re.compile(r"__[A-Z]{3,}__")
_BROKEN = re.compile(
  r"^[|!]|\{\{|\}\}|\{\||\|\}|\[\[|\]\]|</?[a-z]+(?:\s|[^<>]*>)",
  re.IGNORECASE,
)
# What templates that went leave in parentheses: "(; , 1900)" and "()".
_OPENED = re.compile(r"\((?:\s*[,;:])*\s+|\((?:\s*[,;:])+")
_CLOSED = re.compile(r"(?:\s?[,;:]){0,9}\s*\)")
_DOUBLED = re.compile(r"[;,](?=\s?[;,])")
_EMPTIED = re.compile(r"\s*\(\s*\)")
_SPACES = re.compile(r"[^\S\n]+")
_BEFORE_MARK = re.compile(r" +([,.;:!?)](?:\s|$))")


def is_disambiguation(markup: str) -> bool:
  """Whether a page says that it only tells articles apart."""
  return bool(_DISAMBIGUATION.search(markup))


def plain_text(
  markup: str, hidden: Iterable[str] = ("file", "image", "category")
) -> tuple[str, int]:
  """The prose of a page.

  Args:
    markup: of the page.
    hidden: namespaces, in lower case, whose links show nothing.

  Returns:
    The text, and how many lines were dropped for broken markup.

  Raises:
    ValueError: the parser fails.
  """
  for gone in (_COMMENT, _REFERENCE, _OPEN_REFERENCE, _END_SECTION):
    markup = gone.sub("", markup)
  try:
    parsed = mwparserfromhell.parse(markup, skip_style_tags=False)
    shown = "".join(_shown(parsed, frozenset(hidden)))
  except (ParserError, RecursionError) as e:
    raise ValueError(pages.UNPARSABLE) from e
  lines = [_tidy(line) for line in _MAGIC.sub("", shown).split("\n")]
  lines = [x for x in lines if x and not _LIST_LINE.match(x)]
  kept = [line for line in lines if not _BROKEN.search(line)]
  return "\n".join(kept), len(lines) - len(kept)


def _shown(code: Wikicode | None, hidden: frozenset[str]) -> Iterator[str]:
  """The texts that a reader of the page sees."""
  for node in code.nodes if code else ():
    if isinstance(node, nodes.Text):
      yield node.value
    elif isinstance(node, nodes.Tag):
      yield from _of_tag(node, hidden)
    elif isinstance(node, nodes.Wikilink):
      if _shows(str(node.title), hidden):
        yield from _shown(node.text or node.title, hidden)
    elif isinstance(node, nodes.ExternalLink):
      if node.brackets:
        yield from _shown(node.title, hidden)
    elif isinstance(node, nodes.HTMLEntity):
      yield node.normalize()
    elif isinstance(node, nodes.Template):
      yield from _of_template(node, hidden)
    elif isinstance(node, nodes.Heading):
      yield "\n"


def _of_tag(node: nodes.Tag, hidden: frozenset[str]) -> Iterator[str]:
  name = str(node.tag).strip().lower()
  if name in _GONE_TAGS:
    return
  if node.wiki_markup in ("*", "#", ";", ":"):
    yield node.wiki_markup  # begins a line: it goes by that
    return
  if name in _BREAKS:
    yield "\n"
  yield from _shown(node.contents, hidden)
  if name in _BREAKS:
    yield "\n"


def _of_template(node: nodes.Template, hidden: frozenset[str]) -> Iterator[str]:
  name = str(node.name).strip().lower().replace("_", " ")
  if name in _CONVERT:
    values = [str(p.value).strip() for p in node.params if not p.showkey]
    yield " ".join(values[:2])
    return
  wanted = ("1",) if name.startswith("lang-") else _SHOWN.get(name, ())
  for key in wanted:
    if node.has(key):
      yield from _shown(node.get(key).value, hidden)
      return


def _shows(title: str, hidden: frozenset[str]) -> bool:
  if title.lstrip().startswith(":"):
    return True
  prefix = _LINK_PREFIX.match(title)
  return not (prefix and prefix[1].lower() in hidden)


def _tidy(line: str) -> str:
  line = _SPACES.sub(" ", line)
  if "(" in line:
    line = _DOUBLED.sub("", line)
    line = _EMPTIED.sub("", _CLOSED.sub(")", _OPENED.sub("(", line)))
  return _BEFORE_MARK.sub(r"\1", line).strip()
