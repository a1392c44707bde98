"""Every test sees 8 simulated CPU devices; set before jax is imported."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    # Too many collectives under way hang; the default wait is 40 s, and a
    # much shorter one kills healthy tests on a busy machine.
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=5",
    "--xla_cpu_collective_call_terminate_timeout_seconds=20",
  ]
)

import hypothesis
from absl import flags

flags.FLAGS.mark_as_parsed()  # grain's worker processes ask absl
hypothesis.settings.register_profile(
  "tests", deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("tests")
