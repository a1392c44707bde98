"""What one GPU reaches, in bfloat16, each beside plain torch in the same rounds.

  bash benchmarks/gpu_all.sh          # all of it, in under nine minutes
  python -m benchmarks.gpu --measure=search [--peer_python=PEER/bin/python]

--measure=step: BERT-base twice, loss, all gradients and the update of a batch of
8 queries (--queries) and 8 candidates each, none of them null; padding is
computed. embed: blocks of 288 wordpieces through build_index's own code, as many
at a time as it takes and fewer. search: the 8 best of 13.35 million rows of 128
for 512 queries. refresh: the training step itself, which searches and reads
13.35 million blocks, without and with a slice of the next index in it, of a
tenth of its FLOPs; it has no peer. The peer of the others is
benchmarks/peers/torch_bert.py (SDPA, autocast, fused AdamW; torch.topk), left
out where that Python has no torch. On a GPU, step and embed are measured by
cuDNN's attention as well (config.attention), and the first loss and norm of the
gradient of both say whether it computes the same. Steps follow each other five
at a time without waiting, as in a run. --smoke runs all at toy sizes, on any
machine.

Columns of the table:
  ms        median over interleaved rounds
  of ours   ms / ms of the first line, the median of each round's ratio
  a second  queries, blocks or queries
  TFLOP/s   of matrix products, counted (realm_jax/plan/cost.py)
  MFU       TFLOP/s of what the maker states (realm_jax/plan/hardware.py, or --flops)
  of floor  ms / the least that products and memory would take: those FLOPs, and
            the rows read once, at what the maker states (--bandwidth)
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import jax
import numpy as np
from absl import flags

from benchmarks import gpu_programs, peer, sizes, start
from benchmarks.gpu_programs import BASE, DTYPE, TIMES, TOY, Search
from realm_jax.config import InputError
from realm_jax.plan import device
from realm_jax.plan.hardware import HARDWARE, Hardware

_MAKERS = tuple(HARDWARE[name] for name in ("h100", "h200", "a100"))


def measures(toy: bool, queries: int = 0) -> dict[str, tuple[Callable, dict]]:
  """Name -> what makes its lines, and the sizes for the peer."""
  s, search = (TOY, Search(5_000, 7, 16, 3)) if toy else (BASE, Search())
  s = s._replace(B=queries or s.B)
  blocks, batches = (64, (32,)) if toy else (4096, (256, 32))
  num_blocks = 500 if toy else sizes.WIKIPEDIA
  return {
    "step": (
      lambda: gpu_programs.step_lines(s),
      {**s._asdict(), "times": TIMES},
    ),
    "refresh": (
      lambda: gpu_programs.refresh_lines(s, num_blocks),
      {**s._asdict(), "rows": num_blocks},
    ),
    "embed": (
      lambda: gpu_programs.embed_lines(s, blocks, batches),
      {**s._asdict(), "blocks": blocks, "batch": max(batches)},
    ),
    "search": (lambda: gpu_programs.search_lines(search), search._asdict()),
  }


def hardware(flops: str, bandwidth: str) -> Hardware | None:
  """What the maker of this device states, or the flags do; None: unknown."""
  kind = jax.devices()[0].device_kind
  known = [
    h
    for h in _MAKERS
    if h.name.split()[0] in kind and h.flops == device.peak_flops(kind)
  ]
  if flops and bandwidth:
    rates = device.parse("flops", flops), device.parse("bandwidth", bandwidth)
    return Hardware(kind, "gpu", None, *rates)
  if flops or bandwidth:
    raise InputError("--flops and --bandwidth go together: give both")
  return known[0] if known else None


def has_torch(python: str) -> bool:
  """Whether a Python is there and has torch."""
  try:
    found = subprocess.run(
      [python, "-c", "import torch"], capture_output=True, check=False
    )
  except OSError:
    return False
  return found.returncode == 0


def report(
  measure: str, toy: bool, python: str, rounds: int, rates=None, queries=0
) -> str:
  """The table of one measure."""
  make, given = measures(toy, queries)[measure]
  lines = make()
  programs = {name: line.run for name, line in lines.items()}
  head = f"{measure}: " + " ".join(f"{k}={v}" for k, v in given.items())
  head += f", {DTYPE}, {jax.devices()[0].device_kind}"
  if measure == "refresh":
    seconds, about = start.interleaved(programs, rounds), "no peer"
  elif not has_torch(python):
    seconds = start.interleaved(programs, rounds)
    about = f"no torch: --peer_python={python} cannot import it"
  else:
    with tempfile.TemporaryDirectory() as name:
      folder = pathlib.Path(name)
      text = json.dumps({"measure": measure, **given})
      (folder / "sizes.json").write_text(text)
      with peer.started("torch_bert.py", python, folder) as torch:
        programs["torch"] = lambda _: torch.run("run", 0)
        seconds = start.interleaved(programs, rounds)
        about = f"torch: {torch.about}"
  says = [f"{name}: {line.says}" for name, line in lines.items() if line.says]
  return "\n".join([head, about, "", *_table(lines, seconds, rates), *says])


def _table(lines, seconds, rates) -> Iterator[str]:
  yield start.row("", "ms", "of ours", "a second", "TFLOP/s", "MFU", "of floor")
  first = next(iter(seconds.values()))
  line = next(iter(lines.values()))
  for name, s in seconds.items():
    line = lines.get(name, line)
    median = np.median(s) / line.times
    cells = [
      f"{1e3 * median:.2f}",
      f"{np.median(s / first):.2f}",
      f"{line.items / median:.0f}",
      f"{(rate := line.cost.flops / median) / 1e12:.3g}",
    ]
    if rates:
      floor = line.cost.seconds(rates.flops, rates.bandwidth)
      cells += [f"{rate / rates.flops:.0%}", f"{median / floor:.1f}"]
    yield start.row(name, *cells)
  if rates:
    yield f"{rates.name}: {rates.flops:.3g} FLOP/s, {rates.bandwidth:.3g} B/s"
  else:
    yield "no data sheet of this device: --flops and --bandwidth for MFU, floor"


def main(f) -> None:
  # the peer wants room on the same device
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  rates = hardware(f.flops, f.bandwidth)
  table = report(f.measure, f.smoke, f.peer_python, f.rounds, rates, f.queries)
  print(table, flush=True)


if __name__ == "__main__":
  flags.DEFINE_enum("measure", "step", list(measures(True)), "what")
  flags.DEFINE_integer("queries", 0, "of a step, for another B", 0)
  flags.DEFINE_bool("smoke", False, "toy sizes, on any machine")
  flags.DEFINE_string("peer_python", sys.executable, "a Python with torch")
  flags.DEFINE_integer("rounds", 10, "how often each runs", 1)
  flags.DEFINE_string("flops", "", "the maker's, bfloat16, such as 989e12")
  flags.DEFINE_string("bandwidth", "", "the maker's, such as 4.8e12")
  start.run(main)
