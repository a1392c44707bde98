"""Every test sees 8 simulated CPU devices; set before jax is imported."""

import gc
import importlib.metadata
import os
import signal
import tempfile
import threading

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",  # compiles in half the time
    # Too many collectives under way hang; the default wait is 40 s, and a
    # much shorter one kills healthy tests on a busy machine.
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=5",
    "--xla_cpu_collective_call_terminate_timeout_seconds=20",
  ]
)
if importlib.metadata.version("jax") < "0.11":
  # Its way with fused operations takes twice as long to compile as the one
  # before it; later versions have one way and know no such flag. What a smoke
  # demo runs is compiled as users compile it.
  os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# Tests, their processes and pytest's workers share what they compile.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  _xla = tempfile.TemporaryDirectory(prefix="realm_jax_tests_")  # till the end
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _xla.name
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ.setdefault(
  "GLIBC_TUNABLES", ""
)  # no command starts anew: it is here
# No lines of the source in what is compiled: it is less to write and to read.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

# A process started in the background inherits SIGINT as ignored, and so do its
# children; the tests of an interrupt want it as a terminal gives it.
if threading.current_thread() is threading.main_thread():
  signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis
import pytest
from absl import flags

flags.FLAGS.mark_as_parsed()  # grain's worker processes ask absl
hypothesis.settings.register_profile(
  "tests", deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("tests")

# Tracing makes many small objects and few cycles; the default threshold of
# 700 spends a third of its time on looking for them.
gc.set_threshold(50_000, 20, 100)


def pytest_collection_finish():
  gc.freeze()  # what is imported stays


@pytest.fixture(autouse=True)
def shown_progress():
  """What one command is told about progress is not for the next."""
  yield
  os.environ.pop("REALM_PROGRESS", None)
  if "progress" in flags.FLAGS:
    flags.FLAGS.progress = True
