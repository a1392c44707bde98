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
import errno
import os
import pathlib
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags
from ml_collections import config_dict

from experiments import arguments, usage
from realm_jax import progress
from realm_jax.config import InputError

flags.disclaim_key_flags()  # --help shows them as the command's own
_PROGRESS = flags.DEFINE_bool("progress", True, "shows it on stderr")

HELP = {"--help", "-help", "-h", "--helpshort", "-?"}
PROCESSES = "REALM_PROCESSES"  # this process's place in a job of several
_STDOUT = 1  # its file descriptor
_XLA_CACHE = "JAX_COMPILATION_CACHE_DIR"
MALLOC = (
  "glibc.malloc.hugetlb=1",  # huge pages, where the kernel gives them
  f"glibc.malloc.mmap_threshold={1 << 32}",  # bytes; below: from the heap
  f"glibc.malloc.trim_threshold={1 << 34}",  # bytes; the heap is kept
)
# What a disk may do -> the mend.
_DISK = {
  errno.ENOSPC: "free some",
  errno.EDQUOT: "free some",
  errno.EIO: "look at the disk",
}


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
  the user gave something wrong or the disk fails; 130 when interrupted.

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
    parsed = arguments.parse(
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


def profile_flag() -> None:
  """Defines --profile, of the commands that train; see train/profile.py."""
  flags.DEFINE_string(
    "profile", "", "FIRST:LAST, steps to trace to WORKDIR/profile, for xprof"
  )


def _help(
  command: dict[str, Any],
  defaults: config_dict.ConfigDict | None,
  default_workdir: str | None,
) -> str:
  file, _ = arguments.take_config_file(sys.argv)
  config = arguments.config_or_defaults(file, defaults, help=True)
  return usage.text(
    command,
    flags.FLAGS.get_key_flags_for_module(sys.argv[0]),
    arguments.flatten(config),
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
  except BrokenPipeError:
    if _is_read():
      raise
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    sys.exit(1)
  except OSError as e:
    if e.errno not in _DISK:
      raise
    _exit(
      f"{e.filename or 'writing'}: {e.strerror}: {_DISK[e.errno]} and run again"
    )
  except KeyboardInterrupt:
    sys.exit(130)


def _is_read() -> bool:
  """Whether somebody reads what is printed; `head` stops when it has enough."""
  stdout = select.poll()
  stdout.register(_STDOUT, 0)
  return not any(event & select.POLLERR for _, event in stdout.poll(0))


def use_huge_pages(even_with_jax: bool = False) -> None:
  """Starts this process anew with a C library that keeps memory, in huge pages.

  A step on a CPU takes and gives back hundreds of megabytes; at glibc's
  defaults a third of its time goes into page faults. glibc reads its tunables
  once, as a process starts. Nothing happens where $GLIBC_TUNABLES is set, off
  Linux, or in a process that has JAX loaded, so is at work already.

  Args:
    even_with_jax: JAX is loaded, but nothing is done with it yet.
  """
  if (
    sys.platform != "linux"
    or "GLIBC_TUNABLES" in os.environ
    or ("jax" in sys.modules and not even_with_jax)
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


def _exit(message: str) -> None:
  print("error:", " ".join(message.split()), file=sys.stderr)
  sys.exit(2)
