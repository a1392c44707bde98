"""Converts models between the reference's directories and runs.

  python -m experiments.convert --from=DIR --to=DIR [--format=safetensors]
    [--kind=KIND] [--partial]

DIR is a directory of the reference's (PyTorch), a checkpoint of TensorFlow's,
a plain BERT's, or a run of ours. --format=safetensors writes what the reference
and realm_jax.load_pretrained read; --format=orbax a checkpoint that a run can
start from (--config.init.embedder=DIR). --kind is embedder, scorer, encoder,
reader or openqa, where the directory doesn't say; --partial draws what is
missing.

Needs: a model's directory, or a run with a checkpoint.
"""

import pathlib
import sys

from absl import flags

from experiments import command
from realm_jax.config import InputError

_FORMATS = ("safetensors", "orbax")


def main(source: str, to: str, format: str, kind: str | None, partial: bool):
  from realm_jax import pretrained
  from realm_jax.serve import exchange

  model = exchange.open_model(source, kind, partial)
  if format == "orbax":
    exchange.write_run(to, model)
  else:
    pretrained.save_pretrained(to, model)
  if model.fresh:
    print(f"drawn, not read: {', '.join(model.fresh)}")
  print(f"{type(model.module).__name__} in {pathlib.Path(to)}")


def parse(argv: list[str]) -> tuple:
  """What main takes.

  Raises:
    InputError: a flag that is missing or wrong.
  """
  values = flags.FlagValues()
  for name, text in (
    ("from", "what to convert"),
    ("to", "the directory to write"),
    ("kind", "which model"),
  ):
    flags.DEFINE_string(name, None, text, flag_values=values)
  flags.DEFINE_enum(
    "format", _FORMATS[0], _FORMATS, "what to write", flag_values=values
  )
  flags.DEFINE_bool("partial", False, "draw what is missing", values)
  try:
    words = values(argv)[1:]
  except flags.Error as e:
    raise InputError(f"{e}; there are --{', --'.join(values)}") from e
  for name in ("from", "to"):
    if not values[name].value:
      raise InputError(f"--{name} is missing: give a directory")
  if words:
    raise InputError(f"{words[0]!r}: this command takes flags only")
  names = ("from", "to", "format", "kind", "partial")
  return tuple(values[name].value for name in names)


if __name__ == "__main__":
  if command.HELP.intersection(sys.argv):
    print(__doc__)
    sys.exit()
  with command.clean_exit():
    main(*parse(sys.argv))
