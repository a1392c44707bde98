"""Loads each model of DIR with realm_jax and saves it again, for read_back.py.

usage: python tests/oracle/resave.py DIR OUT
"""

import pathlib
import sys

import realm_jax


def main(source: str, out: str):
  """Every directory of `source` that holds a model goes to `out`."""
  for config in sorted(pathlib.Path(source).glob("*/config.json")):
    name = config.parent.name
    pretrained = realm_jax.load_pretrained(config.parent)
    realm_jax.save_pretrained(pathlib.Path(out) / name, pretrained)


if __name__ == "__main__":
  main(*sys.argv[1:])
