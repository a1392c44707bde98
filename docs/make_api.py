"""Writes docs/api.md from the docstrings of realm_jax's public names.

  python docs/make_api.py

The examples are docs/examples/NAME.py, which the tests run; what differs from
the reference is docs/differences.md.
"""

import dataclasses
import inspect
import pathlib
import re
import sys
import textwrap

import flax.linen as nn

import realm_jax

_DOCS = pathlib.Path(__file__).parent
_TOP = """\
# The API

Written by `python docs/make_api.py` from the docstrings; do not edit. Classes,
arguments and fields carry the names of
[transformers 4.34's REALM](https://huggingface.co/docs/transformers/v4.34.0/en/model_doc/realm).
Letters of shapes are those of `realm_jax/types.py`: B queries, K candidates, Q
and C lengths of query and block, L of both joined, M masks, V vocabulary, D
hidden size, P projected size, N blocks found or in the index, S spans, A
answers. Paths in the examples are directories on disk, with the files that the
hub has under that name; nothing is fetched from a network.
"""
_SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Yields")
_LINEN = {name for name, _ in inspect.getmembers(nn.Module)}


def main() -> None:
  """Writes the file."""
  (_DOCS / "api.md").write_text(api())


def api() -> str:
  """The text of api.md."""
  parts = [_TOP]
  parts += [_entry(name) for name in realm_jax.__all__]
  parts.append((_DOCS / "differences.md").read_text())
  return "\n".join(parts)


def _entry(name: str) -> str:
  thing = getattr(realm_jax, name)
  lines = [f"## {name}", "", f"`{thing.__module__}`", ""]
  if not (inspect.isclass(thing) and issubclass(thing, Exception)):
    lines.append(_signature(name, thing))
  lines.append(_prose(inspect.getdoc(thing)))
  for method, function in _methods(thing):
    shown = name if method == "__call__" else f"{name}.{method}"
    lines += [f"### {shown}{'(…)' if method == '__call__' else ''}", ""]
    lines += [_signature(method, function), _prose(inspect.getdoc(function))]
  example = _DOCS / "examples" / f"{name}.py"
  if example.exists():
    lines += ["Example:", "", f"```python\n{example.read_text()}```", ""]
  return "\n".join(lines)


def _methods(thing) -> list[tuple[str, object]]:
  """Public methods of a class that are documented, in order of name."""
  if not inspect.isclass(thing):
    return []
  found = {}
  for cls in reversed(thing.__mro__):
    if not cls.__module__.startswith("realm_jax"):
      continue
    for name, value in vars(cls).items():
      function = getattr(value, "__func__", value)
      public = name == "__call__" or not name.startswith("_")
      hidden = name in _LINEN and name != "__call__"
      if public and not hidden and inspect.isfunction(function):
        found[name] = function
  return [(k, found[k]) for k in sorted(found) if inspect.getdoc(found[k])]


def _signature(name: str, function) -> str:
  """The call as code, broken where it is long."""
  if dataclasses.is_dataclass(function) and not issubclass(function, nn.Module):
    parameters = _fields(function)
  else:
    parameters = inspect.signature(function).parameters.values()
  if inspect.isclass(function) and issubclass(function, nn.Module):
    parameters = [p for p in parameters if p.name not in ("parent", "name")]
  words = [_parameter(p) for p in parameters if p.name not in ("self", "cls")]
  words = _with_star(words, parameters)
  call = f"{name}({', '.join(words)})"
  if len(call) > 80:
    call = f"{name}(\n  " + ",\n  ".join(words) + ",\n)"
  return f"```python\n{call}\n```\n"


def _fields(cls) -> list[inspect.Parameter]:
  """The fields of a dataclass as its constructor takes them."""
  kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
  return [
    inspect.Parameter(
      f.name,
      kind,
      default=inspect.Parameter.empty
      if f.default is dataclasses.MISSING
      else f.default,
    )
    for f in dataclasses.fields(cls)
    if f.name != "extra"
  ]


def _parameter(parameter: inspect.Parameter) -> str:
  stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
  word = stars.get(parameter.kind, "") + parameter.name
  if parameter.default is parameter.empty:
    return word
  return f"{word}={parameter.default!r}"


def _with_star(words, parameters) -> list[str]:
  """Puts the bare * before the first argument that has to be named."""
  kept = [p for p in parameters if p.name not in ("self", "cls")]
  kinds = [p.kind for p in kept]
  keyword, star = (
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_POSITIONAL,
  )
  if keyword not in kinds or star in kinds:
    return words
  at = kinds.index(keyword)
  return [*words[:at], "*", *words[at:]]


def _prose(doc: str | None) -> str:
  """A docstring as Markdown: its sections become lists."""
  if not doc:
    return ""
  heads = "|".join(_SECTIONS)
  parts = re.split(rf"^({heads}):\n", doc, flags=re.MULTILINE)
  lines = [parts[0].strip(), ""]
  for head, body in zip(parts[1::2], parts[2::2], strict=True):
    listed, rest = _indented(body)
    lines += [f"**{head}**", "", _listed(listed), ""]
    if rest:
      lines += [rest, ""]
  return "\n".join(lines)


def _indented(body: str) -> tuple[str, str]:
  """The indented part of a section and what follows it."""
  match = re.search(r"^\S", body, flags=re.MULTILINE)
  end = match.start() if match else len(body)
  return textwrap.dedent(body[:end]).strip("\n"), body[end:].strip()


def _listed(body: str) -> str:
  """`name: what` entries as a list; any other text as it is."""
  entry = r"^(?=\*{0,2}[A-Za-z_][\w., ]*:\s)"
  items = re.split(entry, body, flags=re.MULTILINE)
  if items[0].strip():
    return body
  shown = []
  for item in items[1:]:
    name, _, text = item.partition(":")
    text = " ".join(text.split())
    shown.append(f"- `{name}`: {text}")
  return "\n".join(shown)


if __name__ == "__main__":
  sys.exit(main())
