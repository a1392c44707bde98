"""How much memory a device has, by its own word; its peak, by its maker's."""

import contextlib
import os
import pathlib
import re

import jax

from realm_jax.config import InputError

_GROUP = "/sys/fs/cgroup/memory.max"  # of a container
# What JAX calls a device -> its products of bfloat16 in a second, dense, by the
# maker's data sheet. The first that fits; a TPU v2, v3 or 7x is two devices.
_PEAKS = (
  (r"GB200", 2.5e15),
  (r"B200", 2.25e15),
  (r"H100 PCIe", 756e12),
  (r"H100 NVL", 835e12),
  (r"H100|H200", 989e12),  # SXM, and GH200
  (r"A100", 312e12),
  (r"L40S", 362e12),
  (r"L4$", 121e12),
  (r"TPU v2", 22.5e12),
  (r"TPU v3", 61.5e12),
  (r"TPU v4$", 275e12),
  (r"TPU v5 ?(lite|e)", 197e12),
  (r"TPU v5", 459e12),
  (r"TPU v6", 918e12),
  (r"TPU ?7x", 1153.5e12),
)
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


def is_host() -> bool:
  """Whether the devices are the host's own processors."""
  return jax.local_devices()[0].platform == "cpu"


def memory() -> int | None:
  """Bytes of a device's memory; None where it does not tell.

  CPU devices share what the host, or the container, has.
  """
  if not is_host():
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit")
  host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  # no container, or one without a limit ("max")
  with contextlib.suppress(OSError, ValueError):
    host = min(host, int(pathlib.Path(_GROUP).read_text()))
  return host // jax.local_device_count()


def peak_flops(kind: str | None = None) -> float | None:
  """FLOPs of a device in a second, at its peak; None where nobody knows.

  Args:
    kind: jax.Device.device_kind; None for this machine's.
  """
  kind = kind or jax.local_devices()[0].device_kind
  return next((peak for name, peak in _PEAKS if re.search(name, kind)), None)


def parse(name: str, text: str) -> float:
  """`80GB`, `3.35e12` or `67 TB` as a number.

  Raises:
    InputError: names the flag and its value.
  """
  match = re.fullmatch(
    r"\s*([0-9.]+(?:e\+?\d+)?)\s*([KMGTP]?)(B|FLOPS?)?\s*", text, re.I
  )
  try:
    value = float(match[1]) * _UNITS[match[2].upper()]
  except (TypeError, ValueError) as e:
    raise InputError(f"--{name}={text}: wanted such as 80GB or 8e10") from e
  if not value > 0:
    raise InputError(f"--{name}={text}: wanted more than 0")
  return value
