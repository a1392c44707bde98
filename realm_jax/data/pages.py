"""Pages: what a source holds, before it is an article or dropped.

Every page that becomes no article has a reason, a few words of this file, and
preparation counts them.
"""

import re
from typing import NamedTuple

PAGES, ARTICLES = "pages", "articles"  # read, and kept
REDIRECT = "redirect"
NAMESPACE = "other namespace"
LIST = "list, index or outline"
DISAMBIGUATION = "disambiguation"
EMPTY = "no text"
UNPARSABLE = "markup that cannot be parsed"
SAME_ID = "the id of an earlier article"
# Not reasons to drop an article.
NO_WORDPIECE = "no wordpiece (the article is kept, without a block)"
BROKEN = "lines of broken markup (the article is kept)"

# As ORQA's preprocessor drops them, by the beginning of the title.
_LIST_TITLE = re.compile(r"(?:Lists?|Index(?:es)?|Outlines?) of ")


class Page(NamedTuple):
  """A record of a source, as it was read.

  Attributes:
    id: of the article.
    title: of the article.
    text: plain, or with the markup of its source.
    dropped: why it is no article, where that shows without its text; "" else.
    hidden: of wiki markup, the namespaces whose links show nothing, in lower
      case.
  """

  id: str
  title: str
  text: str
  dropped: str = ""
  hidden: tuple[str, ...] = ()


def title_reason(title: str) -> str:
  """Why a Wikipedia page of this title is no article; "" if it may be one."""
  if _LIST_TITLE.match(title):
    return LIST
  if "(disambiguation)" in title:
    return DISAMBIGUATION
  return ""
