"""Devices by their data sheets, for plans of what is not here, or by flags."""

from typing import NamedTuple

from realm_jax.config import InputError
from realm_jax.plan import device

_peak = device.peak_flops  # one home


class Hardware(NamedTuple):
  """A device at its maker's word; None for a figure that is not known.

  Attributes:
    name: in full; "" for the device that is here.
    backend: jax's name of its kind; "" for that.
    memory: bytes.
    flops: a second, dense bfloat16 products.
    bandwidth: bytes a second that its memory moves.
    wire: bytes a second that it sends to the other devices of a large mesh: of
      a GPU its network card, of a TPU all links, one way.
  """

  name: str
  backend: str
  memory: float | None = None
  flops: float | None = None
  bandwidth: float | None = None
  wire: float | None = None


# Name on the command line -> device. GPUs: NVIDIA's data sheets, and a DGX's
# card for each GPU (A100 200, H100 and H200 400 Gbit/s). TPUs: Google Cloud's
# pages of the system architecture; of all links together 2,400 (v4), 1,600
# (v5e) and 4,800 Gbit/s (v5p) each way; of a v3 a core is a device and has half
# of the chip (memory 32 GB, 123 TFLOP/s, 0.9 TB/s), and half of one link's 656
# Gbit/s is counted, the least that it can be.
HARDWARE = {
  "a100": Hardware("A100 SXM 80 GB", "gpu", 80e9, _peak("A100"), 2.04e12, 25e9),
  "h100": Hardware("H100 SXM 80 GB", "gpu", 80e9, _peak("H100"), 3.35e12, 50e9),
  "h200": Hardware("H200 SXM", "gpu", 141e9, _peak("H200"), 4.8e12, 50e9),
  "v3": Hardware("TPU v3, a core", "tpu", 16e9, _peak("TPU v3"), 0.45e12, 41e9),
  "v4": Hardware("TPU v4", "tpu", 32e9, _peak("TPU v4"), 1.2e12, 300e9),
  "v5e": Hardware("TPU v5e", "tpu", 16e9, _peak("TPU v5e"), 0.82e12, 200e9),
  "v5p": Hardware("TPU v5p", "tpu", 95e9, _peak("TPU v5p"), 2.77e12, 600e9),
}


def named(name: str) -> Hardware:
  """The device of that name.

  Raises:
    InputError: none of HARDWARE.
  """
  if name not in HARDWARE:
    raise InputError(
      f"--platform={name}: wanted one of {', '.join(HARDWARE)}; of another give"
      " --device_memory, --peak_flops and --bandwidth"
    )
  return HARDWARE[name]


def of_flags(
  platform: str, device_memory: str, peak_flops: str, bandwidth: str
) -> Hardware:
  """The device that flags of these names describe; "" for what is not given.

  Raises:
    InputError: names the flag and its value.
  """
  found = named(platform) if platform else Hardware("", "", device.memory())
  given = {
    "memory": device_memory and device.parse("device_memory", device_memory),
    "flops": peak_flops and device.parse("peak_flops", peak_flops),
    "bandwidth": bandwidth and device.parse("bandwidth", bandwidth),
  }
  return found._replace(**{k: v for k, v in given.items() if v})
