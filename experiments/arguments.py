"""The arguments of a command: config, overrides, workdir, its own flags, words.

Everything that is wrong with them is named in one line, with what is near.
"""

import difflib
import inspect
import pathlib
import re
import runpy
import sys
from collections.abc import Iterable
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from realm_jax.config import InputError

flags.disclaim_key_flags()  # --help shows them as the command's own
_HELP_OF_ALL = {"--helpfull", "--helpxml"}  # absl's, with every flag


def parse(
  argv: list[str],
  flag_values: flags.FlagValues,
  *,
  defaults: config_dict.ConfigDict | None = None,
  words: str = "",
  default_workdir: str | None = None,
) -> tuple:
  """Reads --config, its overrides, --workdir and words, as `run` has them.

  Returns:
    What main takes: config, workdir and, where `words` is given, the words.

  Raises:
    InputError: a flag, key, value or file that is missing or wrong.
  """
  file, argv = take_config_file(argv)
  config = config_or_defaults(file, defaults, _HELP_OF_ALL.intersection(argv))
  known = flatten(config)
  _check_keys(argv, known)
  config_flags.DEFINE_config_dict(
    "config",
    config,
    "--config=configs/FILE.py:ARG, and --config.KEY=VALUE to override",
    flag_values,
    sys_argv=argv,
  )
  flags.declare_key_flag("config", flag_values)
  flags.DEFINE_string(
    "workdir", default_workdir, "the run's directory", flag_values=flag_values
  )
  rest = _parse_flags(argv, flag_values, known)
  _check_tuples(config, known)
  if not flag_values.workdir:
    raise InputError("--workdir is missing: give the run's directory")
  if rest and not words:
    raise InputError(
      f"{rest[0]!r}: this command takes flags only, as --name=value"
    )
  workdir = pathlib.Path(flag_values.workdir)
  return (config, workdir, rest) if words else (config, workdir)


def load_config(file: str) -> config_dict.ConfigDict:
  """Runs get_config(ARG) of `FILE.py:ARG`, or get_config() of `FILE.py`.

  A relative FILE is looked for in the current directory, then beside the
  installed `experiments`.

  Raises:
    InputError: no such file, or it has no fitting get_config.
  """
  name, *arg = file.split(":", 1)
  root = pathlib.Path(__file__).parent.parent
  path = next((p for p in (pathlib.Path(name), root / name) if p.is_file()), "")
  if not path:
    there = [
      f"configs/{p.name}" for p in sorted(root.glob("configs/[a-z]*.py"))
    ]
    raise InputError(
      f"--config={file}: no such file; nearest: {nearest(name, there)}"
    )
  get_config = runpy.run_path(str(path)).get("get_config")
  try:
    inspect.signature(get_config).bind(*arg)
  except TypeError as e:
    raise InputError(f"--config={file}: get_config: {e}") from e
  config = get_config(*arg)
  if not isinstance(config, config_dict.ConfigDict):
    raise InputError(f"--config={file}: get_config returned no ConfigDict")
  return config


def take_config_file(argv: list[str]) -> tuple[str | None, list[str]]:
  """Splits --config=FILE or --config FILE from the other arguments."""
  file, rest = None, []
  args = iter(argv)
  for arg in args:
    name, equals, value = arg.partition("=")
    if name in ("--config", "-config"):
      file = value if equals else next(args, "")
    else:
      rest.append(arg)
  return file, rest


def config_or_defaults(
  file: str | None, defaults: config_dict.ConfigDict | None, help: bool
) -> config_dict.ConfigDict:
  """The config of a file, or a copy of the defaults; empty for help alone.

  Raises:
    InputError: no file where one is wanted, or one where none is.
  """
  if file is None:
    if defaults is None and not help:
      raise InputError("--config is missing: give --config=configs/FILE.py:ARG")
    return config_dict.ConfigDict(defaults)
  if defaults is None:
    return load_config(file)
  raise InputError(
    f"--config={file}: this command takes no config file, only"
    f" --config.KEY=VALUE with KEY one of: {', '.join(flatten(defaults))}"
  )


def flatten(config: config_dict.ConfigDict, prefix: str = "") -> dict:
  """Fields of all sections, as "train.batch_size" -> value."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, config_dict.ConfigDict):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def _check_keys(argv: list[str], known: dict[str, Any]) -> None:
  matches = (re.match(r"--?(?:no)?config\.([^=]*)", arg) for arg in argv)
  for key in (m[1] for m in matches if m):
    if section := [k for k in known if k.startswith(f"{key}.")]:
      raise InputError(
        f"--config.{key} is a section: set its keys: {', '.join(section)}"
      )
    if key not in known:
      raise InputError(
        f"--config.{key}: no such key; nearest: {nearest(key, known)}"
      )


def _parse_flags(
  argv: list[str], flag_values: flags.FlagValues, known: dict[str, Any]
) -> list[str]:
  try:
    return flag_values(argv)[1:]
  except flags.UnrecognizedFlagError as e:
    raise InputError(
      f"--{e.flagname}: no such flag; there are --config, --config.KEY,"
      f" {', '.join(_own_flags(flag_values))}"
    ) from e
  except flags.Error as e:
    given = re.match(r"flag (--config\.([^=]*)=.*?): ", str(e), re.DOTALL)
    if given and given[2] in known:
      raise _ill_typed(given[1], known[given[2]]) from e
    raise InputError(str(e)) from e


def _own_flags(flag_values: flags.FlagValues) -> list[str]:
  """The command's own flags and those of every command."""
  names = [f.name for f in flag_values.get_key_flags_for_module(sys.argv[0])]
  names = [n for n in names if n.partition(".")[0] not in ("config", "workdir")]
  return ["--workdir", *(f"--{name}" for name in names), "--noprogress"]


def _check_tuples(
  config: config_dict.ConfigDict, known: dict[str, Any]
) -> None:
  """The flags' parser takes anything into a tuple; its elements have a type."""
  for key, value in flatten(config).items():
    was = known[key]
    if isinstance(was, tuple) and was:
      kinds = (int, float) if isinstance(was[0], float) else type(was[0])
      if not all(isinstance(x, kinds) for x in value):
        raise _ill_typed(f"--config.{key}={value}", was)


def _ill_typed(given: str, default: Any) -> InputError:
  kind = type(default).__name__
  return InputError(f"{given}: wanted {kind}, such as the default {default!r}")


def nearest(name: str, names: Iterable[str]) -> str:
  """The three names most like `name`, as a whole or in their last part."""

  def likeness(other: str) -> float:
    pairs = ((name, other), (_last(name), _last(other)))
    return max(difflib.SequenceMatcher(None, *p).ratio() for p in pairs)

  return ", ".join(sorted(names, key=likeness, reverse=True)[:3])


def _last(key: str) -> str:
  return key.rpartition(".")[2]
