"""How fresh a run's index is kept, and what happens where that fails."""

import dataclasses

from realm_jax.config import InputError

AT_BOUND = ("block", "continue", "inline")


class TooOld(InputError):
  """The index is older than allowed; the run saves a checkpoint and stops."""


@dataclasses.dataclass(frozen=True)
class Contract:
  """How fresh the index is kept: the fields of config.refresh of these names.

  Raises:
    InputError: a value that means nothing.
  """

  every_steps: int
  max_staleness_steps: int
  at_bound: str
  block_seconds: float
  poll_steps: int
  replay: str

  def __post_init__(self):
    if self.at_bound not in AT_BOUND:
      raise InputError(
        f"config refresh.at_bound={self.at_bound!r}: wanted one of"
        f" {', '.join(AT_BOUND)}"
      )
    for name, least in (
      ("every_steps", 1), ("poll_steps", 1), ("max_staleness_steps", 0),
      ("block_seconds", 0),
    ):  # fmt: skip
      if getattr(self, name) < least:
        raise InputError(
          f"config refresh.{name}={getattr(self, name)}: wanted at least"
          f" {least}"
        )
