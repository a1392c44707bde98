"""Small MediaWiki dumps for tests."""

_HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">
  <siteinfo><namespaces>
    <namespace key="0" />
    <namespace key="6">Datei</namespace>
    <namespace key="14">Kategorie</namespace>
  </namespaces></siteinfo>
"""
_PAGE = """  <page>
    <title>{title}</title><ns>{ns}</ns><id>{id}</id>{redirect}
    <revision><id>1{id}</id><text xml:space="preserve">{text}</text></revision>
  </page>
"""
END = "</mediawiki>\n"


def page(number, title, text="It stands here.", ns=0, redirect=""):
  """The XML of one page; text is escaped already."""
  return _PAGE.format(
    id=number, title=title, text=text, ns=ns, redirect=redirect
  )


def dump(*pages):
  """The XML of a dump, as bytes."""
  return (_HEAD + "".join(pages) + END).encode()
