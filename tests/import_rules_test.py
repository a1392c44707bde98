"""Who may import whom, and what nobody may use; read from the source's AST."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
GROUND = {
  "types",
  "config",
  "run_config",
  "files",
  "formats",
  "progress",
  "backend",
}
# Part of realm_jax -> the parts it may import beside itself. A longer name
# (train.state) allows that one module only.
ALLOWED = {
  "types": set(),
  "config": set(),
  "files": {"config"},
  "run_config": {"config", "files"},
  "progress": set(),
  "backend": set(),
  "formats": {"config", "files"},  # NumPy, no jax
  "distributed": {"config"},
  "sharding": GROUND,
  "data": GROUND | {"sharding"},
  "models": {"types", "config", "backend"},  # models see no mesh and no file
  "retrieval": GROUND | {"distributed", "sharding", "data", "models"},
  "plan": GROUND,  # of any program, by its shapes
  "train": GROUND
  | {"distributed", "sharding", "data", "models", "retrieval", "plan"},
  "pretrained": GROUND | {"data", "models", "retrieval"},
  "evals": GROUND | {"sharding", "data", "models", "retrieval", "train.state"},
  "serve": GROUND
  | {"data", "models", "retrieval", "pretrained"}
  | {"train.checkpoint", "evals.curves"},
}
READ_CONFIG_DICT = {  # below them: plain arguments
  "realm_jax.run_config",
  "realm_jax.train.corpus",
  "realm_jax.train.run",
  "realm_jax.train.door",
  "realm_jax.train.indexing",
  "realm_jax.train.warm_start",
  "realm_jax.train.build_index",
  "realm_jax.train.ict",
  "realm_jax.train.pretrain",
  "realm_jax.train.finetune",
  "realm_jax.train.programs",
  "realm_jax.train.shapes",
  "realm_jax.train.share",
  "realm_jax.data.prepare",
  "realm_jax.data.prepare_qa",
  "realm_jax.data.prepare_config",
}
BANNED = {
  "jax.experimental.shard_map": "jax.shard_map",
  "jax.experimental.pjit": "jax.jit",
  "jax.pmap": "jax.jit",
  "jax.tree_map": "jax.tree.map",
  "jax.random.PRNGKey": "jax.random.key",
  "pickle": "a format that cannot run code",
}


def _dotted(node: ast.AST) -> str:
  """`a.b.c` of an attribute chain, "" for anything else."""
  if isinstance(node, ast.Name):
    return node.id
  if isinstance(node, ast.Attribute) and (value := _dotted(node.value)):
    return f"{value}.{node.attr}"
  return ""


def _imports(tree: ast.AST) -> dict[str, str]:
  """Local name -> dotted name of all that a module imports, anywhere."""
  names = {}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for a in node.names:
        names[a.asname or a.name] = a.name
    elif isinstance(node, ast.ImportFrom):
      base = "." * node.level + (node.module or "")
      for a in node.names:
        names[a.asname or a.name] = f"{base}.{a.name}"
  return names


def _uses(tree: ast.AST, imports: dict[str, str]) -> set[str]:
  """Dotted names that a module imports or reaches through its imports."""
  uses = set(imports.values())
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute) and (name := _dotted(node)):
      head, _, rest = name.partition(".")
      uses.add(f"{imports.get(head, head)}.{rest}")
  return uses


def _is(name: str, *modules: str) -> bool:
  return any(name == m or name.startswith(m + ".") for m in modules)


def _layer_breaches(module: str, imports: dict[str, str]) -> list[str]:
  top, _, rest = module.partition(".")
  ours = sorted(n for n in imports.values() if _is(n, "realm_jax"))
  if top == "configs":
    allowed = ["realm_jax.config"]
  elif top == "realm_jax" and rest:
    part = rest.partition(".")[0]
    if part not in ALLOWED:
      return [f"{part} has no place in the order of imports"]
    allowed = [f"realm_jax.{p}" for p in ALLOWED[part] | {part}]
  else:
    allowed = ["realm_jax"]
  found = [f"imports {n}" for n in ours if not _is(n, *allowed)]
  if top != "experiments":
    outer = ["experiments"] + ["configs"] * (top == "realm_jax")
    found += [f"imports {n}" for n in imports.values() if _is(n, *outer)]
  return found


def breaches(module: str, source: str) -> list[str]:
  """The rules that a module's source breaks, in words."""
  tree = ast.parse(source)
  imports = _imports(tree)
  uses = _uses(tree, imports)
  found = _layer_breaches(module, imports)
  found += [f"relative import {n}" for n in imports.values() if n[0] == "."]
  for name, instead in BANNED.items():
    if any(_is(n, name) for n in uses):
      found.append(f"{name}: use {instead}")
  if _is(module, "realm_jax.data") and any(_is(n, "jax.numpy") for n in uses):
    found.append("data uses jax.numpy")
  if _is(module, "configs") and any(_is(n, "jax", "flax") for n in uses):
    found.append("a config imports jax")
  if not _is(module, "experiments") and any(_is(n, "absl.flags") for n in uses):
    found.append("absl flags belong to experiments")
  if _is(module, "realm_jax") and module not in READ_CONFIG_DICT:
    if any(_is(n, "ml_collections") for n in uses):
      found.append("a ConfigDict comes down here")
  for node in ast.walk(tree):
    if isinstance(node, ast.With):
      names = [_dotted(item.context_expr) for item in node.items]
      if any(n.split(".")[-1] == "mesh" for n in names):
        found.append("with mesh: use jax.set_mesh")
    if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
      if getattr(node.value, "value", None) is not False:
        found.append("allow_pickle")
  return found


def _modules() -> list[pathlib.Path]:
  return [
    path
    for top in ("realm_jax", "configs", "experiments")
    for path in sorted((ROOT / top).rglob("*.py"))
  ]


def _name(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(p for p in parts if p != "__init__")


@pytest.mark.parametrize("path", _modules(), ids=_name)
def test_keeps_the_rules(path):
  assert breaches(_name(path), path.read_text()) == []


@pytest.mark.parametrize(
  "module, source",
  [
    ("realm_jax.data.x", "from realm_jax.models import bert"),
    ("realm_jax.data.x", "def f():\n  import realm_jax.train.loop"),
    ("realm_jax.data.x", "from jax import numpy"),
    ("realm_jax.data.x", "import jax\njax.numpy.ones(3)"),
    ("realm_jax.models.x", "from realm_jax import sharding"),
    ("realm_jax.models.x", "from realm_jax.formats import torch_bin"),
    ("realm_jax.formats.x", "from realm_jax import types"),
    ("realm_jax.retrieval.x", "from realm_jax.train.state import TrainState"),
    ("realm_jax.train.x", "from realm_jax import evals"),
    ("realm_jax.evals.x", "from realm_jax.train import loop"),
    ("realm_jax.serve.x", "from realm_jax.train import state"),
    ("realm_jax.config", "from realm_jax import files"),
    ("realm_jax.new_part.x", "import numpy"),
    ("realm_jax.train.x", "from experiments import command"),
    ("realm_jax.train.x", "from configs import ict"),
    ("realm_jax.train.x", "from . import loop"),
    ("realm_jax.train.x", "from absl import flags"),
    ("realm_jax.train.loop", "import ml_collections"),
    ("configs.x", "import jax"),
    ("configs.x", "from realm_jax import types"),
    ("realm_jax.train.x", "import jax\njax.tree_map(f, x)"),
    ("realm_jax.train.x", "from jax import tree_map as m"),
    ("realm_jax.train.x", "from jax.experimental import pjit"),
    ("realm_jax.train.x", "from jax.experimental.shard_map import shard_map"),
    ("realm_jax.train.x", "with mesh:\n  pass"),
    ("realm_jax.train.x", "with self.mesh, a:\n  pass"),
    ("realm_jax.train.x", "import pickle"),
    ("realm_jax.train.x", "np.load(f, allow_pickle=True)"),
  ],
)
def test_a_breach_is_seen(module, source):
  assert len(breaches(module, source)) == 1


@pytest.mark.parametrize(
  "module, source",
  [
    ("realm_jax.retrieval.x", "from realm_jax.formats import torch_bin"),
    ("realm_jax.evals.x", "from realm_jax.train import state"),
    ("realm_jax.serve.x", "from realm_jax.train import checkpoint"),
    ("realm_jax.train.pretrain", "from ml_collections import ConfigDict"),
    ("realm_jax.train.x", "with jax.set_mesh(mesh):\n  pass"),
    ("realm_jax.data.x", "import numpy as np\nnp.load(f, allow_pickle=False)"),
    ("realm_jax", "from realm_jax.models.bert import Bert"),
    ("configs.x", "from configs import common\nimport realm_jax.config"),
    (
      "experiments.x",
      "from realm_jax.train import loop\nfrom absl import flags",
    ),
  ],
)
def test_what_is_allowed_passes(module, source):
  assert breaches(module, source) == []


def test_configs_commands_and_formats_start_without_jax():
  files = sorted((ROOT / "configs").glob("*.py"))
  files += sorted((ROOT / "realm_jax" / "formats").glob("*.py"))
  # and those that start anew to keep their memory in huge pages
  commands = ("command", "demo", "swap_demo", "train_ict", "pretrain", "finetune_qa",
              "build_index", "update_corpus", "refresh_worker",
              "prepare_data")  # fmt: skip
  steps = (f"realm_jax.data.{x}_shards" for x in ("article", "block", "text"))
  modules = [*map(_name, files), *(f"experiments.{c}" for c in commands)]
  modules += steps  # what processes of preparation import
  code = (
    "import importlib, sys\n"
    f"for name in {modules}:\n"
    "  module = importlib.import_module(name)\n"
    "  if name.count('.') and hasattr(module, 'get_config'):\n"
    "    module.get_config()\n"
    "assert not {'jax', 'flax'} & set(sys.modules), 'jax was imported'\n"
  )
  subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
