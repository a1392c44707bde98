"""What one GPU reaches, in bfloat16, each beside plain torch in the same rounds.

  bash benchmarks/gpu_all.sh          # all of it, in under nine minutes
  python -m benchmarks.gpu --measure=search [--peer_python=PEER/bin/python]

--measure=step: BERT-base twice, loss, all gradients and the update of a batch of
8 queries and 8 candidates each, none of them null; padding is computed. embed:
blocks of 288 wordpieces through build_index's own code, as many at a time as it
takes and in larger batches. search: the 8 best of 13.35 million rows of 128 for
512 queries. The peer is benchmarks/peers/torch_bert.py (SDPA, autocast, fused
AdamW; torch.topk), left out where that Python has no torch. On a GPU, step and
embed are measured by cuDNN's attention as well (config.attention), and the
first loss and norm of the gradient of both say whether it computes the same.
--smoke runs all at toy sizes, on any machine.

Columns of the table:
  ms        median over interleaved rounds
  of ours   ms / ms of the first line, the median of each round's ratio
  a second  queries, blocks or queries
  TFLOP/s   of matrix products, counted (realm_jax/plan/cost.py)
  MFU       TFLOP/s of what the maker states (realm_jax/plan/hardware.py, or --flops)
  of floor  ms / the least that products and memory would take: those FLOPs, and
            the rows read once, at what the maker states (--bandwidth)
"""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from benchmarks import embed, peer, sized, sizes, start, synthetic
from configs import pretrain
from realm_jax.config import InputError, RealmConfig
from realm_jax.models import convert
from realm_jax.plan import cost, device
from realm_jax.plan.hardware import HARDWARE, Hardware
from realm_jax.retrieval import mips
from realm_jax.train import run
from realm_jax.train.state import TrainState

_BASE = sized.Sizes(
  B=8, K=8, Q=96, C=288, L=384, M=10, layers=12, hidden=768, block=230, query=60
)
_TOY = sized.Sizes(
  B=2,
  K=3,
  Q=24,
  C=40,
  L=56,
  M=4,
  V=211,
  layers=1,
  hidden=96,
  block=32,
  query=16,
)
_DTYPE = "bfloat16"
_MAKERS = tuple(HARDWARE[name] for name in ("h100", "h200", "a100"))


class Search(NamedTuple):
  """Sizes of a search."""

  rows: int = sizes.WIKIPEDIA
  queries: int = 512
  dim: int = 128
  k: int = 8


class Line(NamedTuple):
  """A program, what it counts as done, and its cost; the peer's is ours.

  `says` is what it computed, if that can be compared.
  """

  run: Callable
  items: int
  cost: cost.Cost
  says: str = ""


def configs(s: sized.Sizes) -> dict[str, RealmConfig]:
  """Name -> model, by each attention that runs here."""
  names = {"ours": "xla"}
  if jax.default_backend() == "gpu":
    names["ours, cudnn"] = "cudnn"
  return {
    name: s.config(compute_dtype=_DTYPE, attention=attention)
    for name, attention in names.items()
  }


def step_lines(s: sized.Sizes) -> dict[str, Line]:
  """The step of one device."""
  return {name: _step_line(s, config) for name, config in configs(s).items()}


def _step_line(s: sized.Sizes, config: RealmConfig) -> Line:
  realm = sized.make_realm(s, config)
  params = sized.init_params(realm)
  tx = run.make_optimizer(pretrain.get_config("base"))
  given = jax.device_put(sized.make_batch(s, seed=0))
  loss = functools.partial(sized.loss, realm)

  def step(state, given):
    value, grads = jax.value_and_grad(loss)(state.params, given)
    return state.apply_gradients(grads, tx), (value, optax.global_norm(grads))

  compiled = jax.jit(step, donate_argnums=0)
  held = [TrainState.create(params, tx)]
  counted = cost.count(step, held[0], given)

  def one(_):
    held[0], value = compiled(held[0], given)
    return jax.block_until_ready(value)

  says = "loss {:.5f}, gradient {:.5f}".format(*map(float, one(0)))
  return Line(one, s.B, counted._replace(bytes=0), says)


def embed_lines(
  s: sized.Sizes, blocks: int, batches: tuple[int, ...]
) -> dict[str, Line]:
  """Embedding of blocks that fill their places, so many at a time."""
  words = s.C * 4  # far more than fit
  rng = np.random.default_rng(0)
  tokens = synthetic.block_tokens(rng, (blocks,), s.C, s.V, words)
  made = {}
  for name, config in configs(s).items():
    buckets = embed.make_buckets(config, s.C, synthetic.SPECIALS)
    embedder = buckets.retrieval.embedder
    params = jax.jit(functools.partial(convert.fresh_params, embedder))(
      jax.random.key(0)
    )
    for size in batches:
      way = dataclasses.replace(buckets, batch_size=size)
      flops = embed.flops(way, params, tokens.lens)
      run_it = functools.partial(_embed, way, params, tokens)
      made[f"{name}, {size} at a time"] = Line(run_it, blocks, cost.Cost(flops))
  return made


def _embed(way, params, tokens, _):
  return way.embed(params, tokens)


def search_lines(s: Search) -> dict[str, Line]:
  """Exact search."""
  make = functools.partial(jax.random.normal, dtype=jnp.bfloat16)
  rows = make(jax.random.key(0), (s.rows, s.dim))
  queries = make(jax.random.key(1), (s.queries, s.dim)).astype(jnp.float32)
  find = jax.jit(lambda rows, queries: mips.top_k(rows, queries, s.k))
  counted = cost.Cost(2 * s.rows * s.queries * s.dim, rows.nbytes)
  return {
    "ours": Line(
      lambda _: jax.block_until_ready(find(rows, queries)), s.queries, counted
    )
  }


def measures(toy: bool) -> dict[str, tuple[Callable, dict]]:
  """Name -> what makes its lines, and the sizes for the peer."""
  s, search = (_TOY, Search(5_000, 7, 16, 3)) if toy else (_BASE, Search())
  blocks, batches = (64, (32,)) if toy else (4096, (embed.SLICE, 256))
  return {
    "step": (lambda: step_lines(s), s._asdict()),
    "embed": (
      lambda: embed_lines(s, blocks, batches),
      {**s._asdict(), "blocks": blocks, "batch": batches[-1]},
    ),
    "search": (lambda: search_lines(search), search._asdict()),
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
  measure: str, toy: bool, python: str, rounds: int, rates=None
) -> str:
  """The table of one measure."""
  make, given = measures(toy)[measure]
  lines = make()
  programs = {name: line.run for name, line in lines.items()}
  head = f"{measure}: " + " ".join(f"{k}={v}" for k, v in given.items())
  head += f", {_DTYPE}, {jax.devices()[0].device_kind}"
  if not has_torch(python):
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
    line, median = lines.get(name, line), np.median(s)
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
  print(report(f.measure, f.smoke, f.peer_python, f.rounds, rates), flush=True)


if __name__ == "__main__":
  flags.DEFINE_enum("measure", "step", ["step", "embed", "search"], "what")
  flags.DEFINE_bool("smoke", False, "toy sizes, on any machine")
  flags.DEFINE_string("peer_python", sys.executable, "a Python with torch")
  flags.DEFINE_integer("rounds", 20, "how often each runs", 1)
  flags.DEFINE_string("flops", "", "the maker's, bfloat16, such as 989e12")
  flags.DEFINE_string("bandwidth", "", "the maker's, such as 4.8e12")
  start.run(main)
