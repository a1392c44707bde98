"""What of the style can be counted: lengths and docstrings."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MAX_FUNCTION_LINES = 70
MAX_COMMAND_LINES = 80
PATHS = [
  path
  for top in ("realm_jax", "experiments", "configs")
  for path in sorted((ROOT / top).rglob("*.py"))
]
COMMANDS = [
  path
  for path in sorted((ROOT / "experiments").glob("*.py"))
  if "\nif __name__ ==" in path.read_text()
]
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def _id(path: pathlib.Path) -> str:
  return str(path.relative_to(ROOT))


def _num_lines(function: ast.FunctionDef) -> int:
  """Lines of a function, its docstring not counted."""
  doc = function.body[0] if ast.get_docstring(function) else None
  doc_lines = doc.end_lineno - doc.lineno + 1 if doc else 0
  return function.end_lineno - function.lineno + 1 - doc_lines


def long_functions(source: str) -> list[str]:
  """Functions over the cap, as "name: lines"."""
  functions = [
    n for n in ast.walk(ast.parse(source)) if isinstance(n, FUNCTION)
  ]
  lengths = {f.name: _num_lines(f) for f in functions}
  return [f"{k}: {v}" for k, v in lengths.items() if v > MAX_FUNCTION_LINES]


def undocumented(source: str) -> list[str]:
  """The module, its public functions and its classes that lack a docstring."""
  module = ast.parse(source)
  public = [
    node
    for node in module.body
    if isinstance(node, (*FUNCTION, ast.ClassDef)) and node.name[0] != "_"
  ]
  named = {"the module": module} | {node.name: node for node in public}
  return [k for k, v in named.items() if not ast.get_docstring(v)]


@pytest.mark.parametrize("path", PATHS, ids=_id)
def test_no_function_is_too_long(path):
  assert long_functions(path.read_text()) == []


@pytest.mark.parametrize("path", PATHS, ids=_id)
def test_public_names_are_documented(path):
  source = path.read_text()
  if source.strip():  # an __init__.py may be empty
    # A command's main is documented by the module, a config's by its top.
    assert set(undocumented(source)) <= {"main", "get_config"}


@pytest.mark.parametrize("path", COMMANDS, ids=_id)
def test_a_command_is_short(path):
  assert len(path.read_text().splitlines()) <= MAX_COMMAND_LINES


def test_a_breach_is_seen():
  source = "def f():\n" + "  a = 1\n" * MAX_FUNCTION_LINES
  assert long_functions(source) == ["f: 71"]
  assert long_functions(source + "\n\nclass A:\n  pass\n") == ["f: 71"]
  assert long_functions(source.replace("a = 1", '"""Doc."""', 1)) == []
  assert undocumented(source) == ["the module", "f"]
  assert undocumented('"""Doc."""\nclass A:\n  def b(self): pass') == ["A"]
  assert undocumented('"""Doc."""\ndef _f(): pass') == []
