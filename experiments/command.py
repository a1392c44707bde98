"""The one way a command starts: flags, config, one library call, clean errors.

A command is a file of this form, of at most 80 lines:

  '''Trains the retriever on the inverse cloze task.

  python -m experiments.train_ict --config=configs/ict.py:demo --workdir=DIR
  '''
  from experiments import command
  from realm_jax.train import ict

  def main(config, workdir):
    ict.train(config, workdir)

  if __name__ == "__main__":
    command.run(main)

A command that works on a finished run takes no config file; it gives its own
defaults, which `--config.KEY=VALUE` overrides, and may take words:

  def main(config, workdir, words):
    …

  if __name__ == "__main__":
    defaults = config_dict.create(num_evidence=3)
    command.run(main, defaults=defaults, words="question")
"""

import contextlib
import difflib
import errno
import inspect
import os
import pathlib
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from absl import app, flags
from ml_collections import config_dict, config_flags

from experiments import usage
from realm_jax import progress
from realm_jax.config import InputError

flags.disclaim_key_flags()  # --help shows them as the command's own
_PROGRESS = flags.DEFINE_bool("progress", True, "shows it on stderr")

HELP = {"--help", "-help", "-h", "--helpshort", "-?"}
_HELP_OF_ALL = {"--helpfull", "--helpxml"}  # absl's, with every flag
PROCESSES = "REALM_PROCESSES"  # this process's place in a job of several
_XLA_CACHE = "JAX_COMPILATION_CACHE_DIR"
MALLOC = (
  "glibc.malloc.hugetlb=1",  # huge pages, where the kernel gives them
  f"glibc.malloc.mmap_threshold={1 << 32}",  # bytes; below: from the heap
  f"glibc.malloc.trim_threshold={1 << 34}",  # bytes; the heap is kept
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def run(
  main: Callable[..., Any],
  *,
  defaults: config_dict.ConfigDict | None = None,
  words: str = "",
  default_workdir: str | None = None,
  several_processes: bool = False,
) -> None:
  """Runs main(config, workdir[, words]) and exits.

  Exit code 0 when all went well; 2, after one line `error: …` on stderr, when
  the user gave something wrong or the disk is full; 130 when interrupted.

  Args:
    main: takes a locked ConfigDict, a pathlib.Path and, where `words` is
      given, the list of words (arguments that are no flags).
    defaults: the config of a command that takes no --config=FILE.
    words: what the words are, for messages; "" = the command takes none.
    default_workdir: where none is given; None: one must be.
    several_processes: whether the command can be one process of a job. Which
      one it is, $REALM_PROCESSES says; see distributed.join.
  """
  use_huge_pages()
  with _ending_at_once(), clean_exit():
    if HELP.intersection(sys.argv[1:]):
      print(_help(main.__globals__, defaults, default_workdir))
      sys.exit()
    app.define_help_flags()
    parsed = parse(
      sys.argv,
      flags.FLAGS,
      defaults=defaults,
      words=words,
      default_workdir=default_workdir,
    )
    if flags.FLAGS["verbosity"].using_default_value:
      flags.FLAGS.verbosity = -1  # libraries' INFO lines drown our own
    if not _PROGRESS.value:
      os.environ[progress.VARIABLE] = progress.OFF
    use_compilation_cache()
    _join(several_processes)
    app.run(
      lambda _: main(*parsed), argv=sys.argv[:1], flags_parser=lambda argv: argv
    )


def _help(
  command: dict[str, Any],
  defaults: config_dict.ConfigDict | None,
  default_workdir: str | None,
) -> str:
  file, _ = _take_config_file(sys.argv)
  config = _config_or_defaults(file, defaults, help=True)
  return usage.text(
    command,
    flags.FLAGS.get_key_flags_for_module(sys.argv[0]),
    _flatten(config),
    file,
    defaults is None,
    default_workdir,
  )


def _join(several_processes: bool) -> None:
  where = os.environ.get(PROCESSES)
  if not where:
    return
  if not several_processes:
    raise InputError(
      f"{PROCESSES}={where}: this command runs in one process: unset it"
    )
  from realm_jax import distributed

  distributed.join(where)


def _ending_at_once() -> contextlib.AbstractContextManager:
  if not os.environ.get(PROCESSES):
    return contextlib.nullcontext()
  from realm_jax import distributed

  return distributed.ending_at_once()


@contextlib.contextmanager
def clean_exit() -> Iterator[None]:
  """Ends in one line and an exit code what `run` says."""
  try:
    yield
  except InputError as e:
    _exit(str(e))
  except OSError as e:
    if e.errno not in _DISK_FULL:
      raise
    _exit(f"{e.filename or 'writing'}: {e.strerror}: free some and run again")
  except KeyboardInterrupt:
    sys.exit(130)


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
  file, argv = _take_config_file(argv)
  config = _config_or_defaults(file, defaults, _HELP_OF_ALL.intersection(argv))
  known = _flatten(config)
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


def use_huge_pages() -> None:
  """Starts this process anew with a C library that keeps memory, in huge pages.

  A step on a CPU takes and gives back hundreds of megabytes; at glibc's
  defaults a third of its time goes into page faults. glibc reads its tunables
  once, as a process starts. Nothing happens where $GLIBC_TUNABLES is set, off
  Linux, or in a process that has JAX loaded, so is at work already.
  """
  if (
    sys.platform != "linux"
    or "GLIBC_TUNABLES" in os.environ
    or "jax" in sys.modules
  ):
    return
  os.environ["GLIBC_TUNABLES"] = ":".join(MALLOC)
  os.execv(sys.executable, sys.orig_argv)


def use_compilation_cache() -> None:
  """Keeps compiled programs for the next start, where the cache is writable.

  They go to $JAX_COMPILATION_CACHE_DIR, else to $REALM_JAX_CACHE/xla, by
  default ~/.cache/realm_jax/xla. JAX is told by its environment variable,
  since a command may import it later, or not at all.
  """
  if os.environ.get(_XLA_CACHE):
    return
  cache = os.environ.get("REALM_JAX_CACHE") or "~/.cache/realm_jax"
  path = pathlib.Path(cache).expanduser() / "xla"
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError:
    return
  if not os.access(path, os.W_OK):
    return
  os.environ[_XLA_CACHE] = str(path)
  if jax := sys.modules.get("jax"):
    jax.config.update("jax_compilation_cache_dir", str(path))


def _take_config_file(argv: list[str]) -> tuple[str | None, list[str]]:
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


def _config_or_defaults(
  file: str | None, defaults: config_dict.ConfigDict | None, help: bool
) -> config_dict.ConfigDict:
  if file is None:
    if defaults is None and not help:
      raise InputError("--config is missing: give --config=configs/FILE.py:ARG")
    return config_dict.ConfigDict(defaults)
  if defaults is None:
    return load_config(file)
  raise InputError(
    f"--config={file}: this command takes no config file, only"
    f" --config.KEY=VALUE with KEY one of: {', '.join(_flatten(defaults))}"
  )


def _flatten(config: config_dict.ConfigDict, prefix: str = "") -> dict:
  flat = {}
  for key, value in config.items():
    if isinstance(value, config_dict.ConfigDict):
      flat |= _flatten(value, f"{prefix}{key}.")
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
  for key, value in _flatten(config).items():
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


def _exit(message: str) -> None:
  print("error:", " ".join(message.split()), file=sys.stderr)
  sys.exit(2)
