"""The ways to refresh an index, by their names in config.refresh.mode."""

from realm_jax.config import InputError
from realm_jax.retrieval.follower import Follower
from realm_jax.retrieval.refresher import Inline, Interleaved, Refresher

MODES = {
  "never": Refresher,
  "inline": Inline,
  "interleaved": Interleaved,
  "worker": Follower,
}


def refresher_of(mode: str) -> type[Refresher]:
  """The class of a mode.

  Raises:
    InputError: no such mode.
  """
  if mode not in MODES:
    raise InputError(
      f"config refresh.mode={mode!r}: wanted one of {', '.join(MODES)}"
    )
  return MODES[mode]
