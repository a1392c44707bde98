"""The documentation: python -m sphinx -W -b html docs build/docs."""

import pathlib
import re

from experiments.__main__ import docs as docstrings

_ROOT = pathlib.Path(__file__).parents[1]

project = "realm-jax"
copyright = "the realm-jax authors, Apache-2.0"
release = re.search(
  r'^version = "(.*)"', (_ROOT / "pyproject.toml").read_text(), re.MULTILINE
)[1]

extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # as GitHub makes them, for links between pages
exclude_patterns = ["differences.md", "examples", "*.ipynb"]
highlight_language = "none"  # of blocks that name no language: commands

html_theme = "furo"
html_title = f"realm-jax {release}"
html_show_sourcelink = False


def setup(app):
  """Has commands.md list what there is."""
  app.connect("source-read", _add_commands)


def _add_commands(app, page, source):
  del app
  if page == "commands":
    source[0] += "".join(
      f"\n## {name}\n\n```\n{doc}\n```\n" for name, doc in docstrings().items()
    )
