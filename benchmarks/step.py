"""What the pre-training step costs, part by part, and what it could reach.

  python -m benchmarks.step --config=configs/pretrain.py:demo --workdir=DIR

  python -m benchmarks.step --peer=hf --peer_python=PEER/bin/python

DIR is the workdir of a run whose data is prepared; without one, made-up words
of the config's sizes are. Any --config.KEY=VALUE as in the commands. One device.
With --peer: loss and all gradients beside another implementation, at sizes of
its own (benchmarks/step_peer.py; benchmarks/peer.py says what to install).

Columns of the table:
  counted   GFLOP of matrix products, from the trace (realm_jax/plan/cost.py)
  XLA       GFLOP by the compiler's cost analysis of the same program; it
            counts the body of a loop once (search, index slice)
  ms        median over interleaved rounds: each runs every program once, on a
            batch of its own, so that a busy machine slows them all alike
  GFLOP/s   counted / ms
  of peak   of the best product of two square float32 matrices in these rounds
  of step   ms / ms of the whole step

A part is a program of its own with its own backward pass; "the rest" is the
whole step less its parts: joining, gathering, losses, and what one program
saves or loses against several. The optimizer has no products; its memory
traffic is counted: gradient, weight and two moments read, the last three
written, and the gradient read once more for its norm.

Below the table: the share of the computed places that is padding and the counted
GFLOP spent on it, and the same step with logits at every position.
"""

import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Iterable

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from benchmarks import mips, peer, programs, start, step_peer, synthetic
from experiments import command
from realm_jax.config import InputError
from realm_jax.data import input_pipeline
from realm_jax.plan import cost
from realm_jax.retrieval import block_tokens, candidates
from realm_jax.train import indexing, pretrain, run, step
from realm_jax.types import PretrainBatch

NO_WORKDIR = "(made-up words)"
_ROUNDS = 9
_OPTIMIZER_BYTES = 4 * 8  # a weight: eight float32 read or written
_WHOLE = ("step", "everywhere", "peak")  # programs that are no parts


@dataclasses.dataclass(frozen=True)
class Measured:
  """Figures of one step.

  Attributes:
    sizes: what was measured, in words.
    counted: part -> FLOPs; "everywhere": those of the two encoder parts, were
      the logits wanted at each position.
    compiled: program -> FLOPs by the compiler.
    seconds: program -> [rounds]; the parts, "step", "everywhere", "peak".
    num_params: weights that the optimizer updates.
    padding: part -> share of what it computes that is padding.
  """

  sizes: str
  counted: dict[str, int]
  compiled: dict[str, float]
  seconds: dict[str, np.ndarray]
  num_params: int
  padding: dict[str, float]


def measure(
  config: ConfigDict, workdir: pathlib.Path, rounds: int = _ROUNDS
) -> Measured:
  """Measures the step of a config on prepared data, on one device.

  Raises:
    InputError: a mistake in config or data, or no step that retrieves.
  """
  if config.evidence != "retrieved":
    raise InputError(
      f"config evidence={config.evidence!r}: only a step that retrieves is"
      " measured: give --config=configs/pretrain.py:demo"
    )
  config.mesh.data = 1
  opened = pretrain.open_pretraining(config, workdir)
  config = opened.config
  tokens, realm = opened.tokens, run.unpadded(opened.realm, config)
  state, tx = run.start(pretrain.init_params(opened), config, opened.corpus)
  batches = batches_of(opened, rounds + 1)  # the first round warms up
  refresher = indexing.make_refresher(
    config,
    workdir,
    opened.corpus,
    opened.realm.retrieval,
    tokens,
    batches[0].query,
  )
  slices, embedder = refresher.slices_per_step, refresher.embedder
  index = refresher.shell(state.params).replace(
    block_emb=embedder.embed_all(state.params["embedder"], tokens)
  )
  given = list(_given(realm, state, index, tokens, batches))
  parts = programs.parts(realm, tx, embedder, slices)
  counted = {k: cost.count(part, given[0]).flops for k, part in parts.items()}
  if slices:  # one round of the loop was counted
    counted["embed index slice"] *= slices
  compiled = {
    name: jax.jit(part).lower(given[0]).compile()
    for name, part in parts.items()
  }
  running, whole = dict(compiled), {}
  everywhere = programs.Everywhere.of(opened.realm)
  for name, forward in (("step", realm), ("everywhere", everywhere)):
    train_step = step.make_pretrain_step(
      forward, tx, config.seed, embedder, slices
    )
    args = state, index, batches[0], tokens
    whole[name] = cost.count(train_step, *args).flops
    running[name] = programs.Steps(train_step, given[0])
    compiled[name] = running[name].compiled
  reader = counted["encoder layers"] + counted["MLM head"]
  counted["everywhere"] = reader + whole["everywhere"] - whole["step"]
  multiply = mips.peak()
  running["peak"] = lambda _: multiply()
  return Measured(
    sizes=_in_words(config, opened),
    counted=counted,
    compiled={
      k: v.cost_analysis().get("flops", np.nan) for k, v in compiled.items()
    },
    seconds=start.interleaved(
      {
        name: lambda i, run=run: jax.block_until_ready(run(given[i]))
        for name, run in running.items()
      },
      rounds,
    ),
    num_params=sum(x.size for x in jax.tree.leaves(state.params)),
    padding=_padding(realm, given[1:]),
  )


def batches_of(opened: pretrain.Pretraining, count: int) -> list[PretrainBatch]:
  """The first batches of the run, on the device."""
  config = opened.config
  batches = input_pipeline.pretrain_batches(
    opened.corpus.data_dir,
    batch_size=config.train.batch_size,
    query_len=config.query_len,
    max_masks=config.max_masks,
    weights=config.text_weights,
    seed=config.seed,
  )
  return [jax.device_put(next(batches)) for _ in range(count)]


def _given(realm, state, index, tokens, batches) -> Iterable[programs.Given]:
  """The arguments of each batch: its candidates by a step's own search."""
  retrieval = realm.retrieval
  find = jax.jit(lambda *args: realm(*args).candidate_ids)
  embed = jax.jit(retrieval.embed_query)
  sizes = realm.encoder.config
  for batch in batches:
    masks = batch.mlm_targets.shape
    shape = (masks[0], realm.num_candidates, masks[1], sizes.hidden_size)
    yield programs.Given(
      state=state,
      index=index,
      tokens=tokens,
      batch=batch,
      ids=find(state.params, index.block_emb, tokens, batch),
      query_emb=embed(state.params, batch.query),
      states=jax.random.normal(jax.random.key(0), shape),
    )


def _padding(realm, given) -> dict[str, float]:
  """Part -> share of the places it computes that hold no token."""
  retrieval, fill = realm.retrieval, realm.retrieval.fill
  shares = {name: [] for name in ("embed queries", "embed candidates",
                                  "encoder layers", "MLM head")}  # fmt: skip
  for g in given:
    found = block_tokens.gather_blocks(g.tokens, g.ids)
    query = candidates.visible(
      g.batch.query, retrieval.embedder, retrieval.specials
    )
    block = candidates.block_inputs(found, retrieval.specials)
    joint, _ = realm.join(g.batch, found)
    places = (
      (query.attention_mask, fill.query),
      (block.attention_mask[:, 1:], fill.block),
      (joint.attention_mask, fill.joint),
      (g.batch.mlm_mask, fill.masks),
    )
    for name, place in zip(shares, places, strict=True):
      shares[name].append(retrieval.room(place)["padding"])
  return {k: float(np.mean(v)) for k, v in shares.items()}


def _in_words(config, opened) -> str:
  return (
    f"B={config.train.batch_size} K={config.num_candidates}"
    f" Q={config.query_len} C={config.block_len}"
    f" L={config.joint_len} M={config.max_masks}"
    f" N={len(opened.corpus.store)} V={opened.corpus.tokenizer.vocab_size},"
    f" {jax.devices()[0].device_kind}"
  )


def report(measured: Measured) -> str:
  """The table, and what follows from it."""
  m = measured
  median = {name: float(np.median(s)) for name, s in m.seconds.items()}
  peak = mips.PEAK_FLOPS / m.seconds["peak"].min()
  lines = [m.sizes, ""]
  lines.append(
    _row("", "counted", "XLA", "ms", "GFLOP/s", "of peak", "of step")
  )
  part_names = [name for name in median if name not in _WHOLE]
  counted = {k: m.counted.get(k, 0) for k in part_names}
  counted["step"] = sum(counted.values())
  for name in (*part_names, "step"):
    rate = counted[name] / median[name]
    lines.append(
      _row(
        name,
        f"{counted[name] / 1e9:.2f}",
        f"{m.compiled[name] / 1e9:.2f}",
        f"{1e3 * median[name]:.1f}",
        f"{rate / 1e9:.0f}",
        f"{rate / peak:.0%}",
        f"{median[name] / median['step']:.0%}",
      )
    )
  rest = median["step"] - sum(median[name] for name in part_names)
  lines.append(
    _row("the rest", "", "", f"{1e3 * rest:.1f}", "", "",
         f"{rest / median['step']:.0%}")
  )  # fmt: skip
  moved = m.num_params * _OPTIMIZER_BYTES
  wasted = {k: v * counted[k] for k, v in m.padding.items()}
  ratio = float(np.median(m.seconds["everywhere"] / m.seconds["step"]))
  reader = counted["encoder layers"] + counted["MLM head"]
  more = counted["step"] - reader + m.counted["everywhere"]
  return "\n".join(
    [
      *lines,
      "",
      f"peak: {peak / 1e9:.0f} GFLOP/s; optimizer: {moved / 1e9:.3f} GB moved,"
      f" {moved / 1e9 / median['optimizer']:.1f} GB/s",
      "padding: "
      + ", ".join(f"{k} {v:.0%}" for k, v in m.padding.items())
      + f"; {sum(wasted.values()) / 1e9:.2f} GFLOP a step are spent on it",
      f"logits at every position: {more / 1e9:.2f} GFLOP counted,"
      f" {m.compiled['everywhere'] / 1e9:.2f} XLA; {ratio:.2f} times the step",
    ]
  )


def _row(name: str, *cells: str) -> str:
  return f"{name:18}" + "".join(f"{cell:>9}" for cell in cells)


def main(config, workdir):
  with tempfile.TemporaryDirectory() as folder:
    if workdir == pathlib.Path(NO_WORKDIR) and not config.data.dir:
      synthetic.prepare_words(config, pathlib.Path(folder))
    print(report(measure(config, workdir)))


if __name__ == "__main__":
  if any(word.lstrip("-").startswith("peer") for word in sys.argv):
    peer.define_flags(step_peer.SCRIPTS)
    flags.DEFINE_integer("rounds", _ROUNDS, "how often each runs", 1)
    start.run(step_peer.main)
    sys.exit()
  if not any(word.lstrip("-").startswith("workdir") for word in sys.argv):
    sys.argv.append(f"--workdir={NO_WORKDIR}")
  command.run(main)
