"""The documentation: python -m sphinx -W -b html docs build/docs."""

import pathlib
import re

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
