"""What `--help` prints: what a command does, an example, its own flags.

Read from its docstring and its source, so that nothing is written twice; the
flags that absl adds to every program are left to --helpfull.
"""

import pathlib
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags

_WIDTH = 80
_COLUMN = 32
_NEEDS = re.compile(r"^Needs: (.*?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)


def summary(doc: str) -> str:
  """The first line of a command's docstring."""
  return doc.partition("\n")[0]


def needs(doc: str) -> str:
  """What the paragraph `Needs: …` of a command's docstring says, or ""."""
  match = _NEEDS.search(doc)
  return " ".join(match[1].split()) if match else ""


def text(
  command: Mapping[str, Any],
  own: list[flags.Flag],
  fields: Mapping[str, Any],
  config_file: str | None,
  takes_file: bool,
  default_workdir: str | None,
) -> str:
  """The whole of it.

  Args:
    command: globals of the command's module.
    own: flags that it defines.
    fields: of its config, as "train.batch_size" -> default.
    config_file: that --config names, if any.
    takes_file: whether the command wants one.
    default_workdir: where none is given.
  """
  default = f" (default: {default_workdir})" if default_workdir else ""
  rows = [("--workdir=DIR", f"the run's directory{default}")]
  if takes_file:
    rows.append(("--config=FILE.py:ARG", "the config; see configs/"))
  rows += [_own(flag) for flag in own]
  rows.append(("--noprogress", "shows no progress on stderr"))
  comments = {} if takes_file else _comments(pathlib.Path(command["__file__"]))
  rows += [
    (f"--config.{name}={_shown(value)}", comments.get(name, ""))
    for name, value in fields.items()
  ]
  if takes_file and not config_file:
    rows.append(
      ("--config.KEY=VALUE", "another value for one; --config=FILE --help"
       " lists them, FILE explains them")
    )  # fmt: skip
  lines = [line for row in rows for line in _row(*row)]
  doc = (command["__doc__"] or "").strip()
  return "\n".join([doc, "", "Flags:", *lines])


def _own(flag: flags.Flag) -> tuple[str, str]:
  if flag.boolean:
    return f"--{flag.name}", flag.help
  value = "" if flag.default is None else _shown(flag.default)
  return f"--{flag.name}={value or flag.name.upper()}", flag.help


def _shown(value: Any) -> str:
  return value if isinstance(value, str) else repr(value)


def _row(flag: str, what: str) -> Iterator[str]:
  """Two columns; a long flag has a line of its own."""
  lines = textwrap.wrap(what, _WIDTH - _COLUMN) or [""]
  head = f"  {flag}"
  if len(head) > _COLUMN - 2 and what:
    yield head
    head = ""
  yield f"{head:{_COLUMN}}{lines[0]}".rstrip()
  yield from (" " * _COLUMN + line for line in lines[1:])


def _comments(path: pathlib.Path) -> dict[str, str]:
  """Field -> comment of its `defaults.FIELD = …`, beside it or above it."""
  found, above = {}, []
  for line in map(str.strip, path.read_text("utf-8").splitlines()):
    if line.startswith("# "):
      above.append(line[2:])
      continue
    if match := re.match(r"defaults\.(\w+) = .*?(?:  # (.*))?$", line):
      found[match[1]] = match[2] or " ".join(above)
    above = []
  return found
