"""`realm-jax`: the commands by name, what each needs, and names completed.

realm-jax                                  lists the commands
realm-jax NAME …                           python -m experiments.NAME …
eval "$(realm-jax completion)"             bash completes names from now on
"""

import ast
import pathlib
import runpy
import sys
import textwrap

import realm_jax
from experiments import arguments, command, usage
from realm_jax.config import InputError

_VERSION = {"--version", "version"}
_COMPLETION = """\
_realm_jax() {{
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{names}" -- "$2"))
  fi
}}
complete -o bashdefault -o default -F _realm_jax realm-jax
"""


def main() -> None:
  """Runs the command that is named, with the other arguments."""
  name, *rest = sys.argv[1:] or ["help"]
  with command.clean_exit():
    if name in command.HELP | {"help"}:
      print(overview())
    elif name in _VERSION:
      print(realm_jax.__version__)
    elif name == "completion":
      print(_COMPLETION.format(names=" ".join([*docs(), name])), end="")
    elif name not in docs():
      near = arguments.nearest(name, docs())
      raise InputError(f"{name}: no such command; nearest: {near}")
    else:
      sys.argv[1:] = rest
      # __main__ is the command from here on: processes that it spawns see it
      runpy.run_module(f"experiments.{name}", run_name="__main__",
                       alter_sys=True)  # fmt: skip


def docs() -> dict[str, str]:
  """Command -> its docstring, in order of name; nothing is imported."""
  found = {}
  for path in sorted(pathlib.Path(__file__).parent.glob("[a-z]*.py")):
    source = path.read_text("utf-8")
    if "\nif __name__ ==" in source:
      found[path.stem] = ast.get_docstring(ast.parse(source))
  return found


def overview() -> str:
  """What there is, in 80 columns."""
  found = docs()
  width = max(map(len, found)) + 2
  lines = ["realm-jax NAME [flags]; NAME --help says more. NAME is one of:", ""]
  for name, doc in found.items():
    lines += _wrap(f"{name:{width}}{usage.summary(doc)}", width)
    lines += _wrap(f"{'':{width}}needs {usage.needs(doc)}", width)
  lines += ["", "completion prints a script; eval it, and bash knows the names"]
  return "\n".join(lines)


def _wrap(text: str, indent: int) -> list[str]:
  return textwrap.wrap(text, 80, subsequent_indent=" " * indent)


if __name__ == "__main__":
  main()
