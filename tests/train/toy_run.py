"""A whole run in a few milliseconds a step, for the tests of the loop.

Also a program, so that a test can kill it: toy_run.py WORKDIR [key=value ...];
REALM_PROCESSES makes it one process of several.
"""

import ast
import os
import signal
import sys
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from experiments import command
from realm_jax import distributed, run_config, sharding
from realm_jax.train import checkpoint, loop, metrics, optimizer
from realm_jax.train.state import TrainState

DEFAULTS = {
  "num_steps": 24,
  "log_every": 2,
  "eval_every": 6,
  "checkpoint_every": 4,
  "max_in_flight": 3,
  "refresh_every": 5,
  "keep": 2,
  "bad_example": -1,  # its loss is nan
  "bad_gradient": -1,  # its loss is finite, its gradient is not
  "signal_at": 0,  # step at whose input the process signals itself
  "signal": int(signal.SIGTERM),
  "pause": 0.0,  # seconds before each step
}
BATCH, WIDTH = 8, 5


@struct.dataclass
class Batch:
  x: np.ndarray  # [B, WIDTH]
  example_ids: np.ndarray  # [B]


@struct.dataclass
class Index:
  emb: jax.Array  # [3, WIDTH]
  version: jax.Array  # ()


def _example(i: int) -> Batch:
  rng = np.random.default_rng(i)
  return Batch(rng.normal(size=WIDTH).astype(np.float32), np.int64(i))


def _stack(examples) -> Batch:
  return jax.tree.map(lambda *rows: np.stack(rows), *examples)


def make_batches():
  """Shuffled, endless, with a position that can be saved."""
  data = grain.MapDataset.range(100, 233).shuffle(seed=3).repeat()
  data = data.map(_example).batch(BATCH, batch_fn=_stack)
  return iter(
    data.to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    )
  )


def make_step(tx, options):
  """Dropout by step number, an index that each step moves, bad examples."""

  def loss_fn(params, emb, batch, step):
    rng = jax.random.fold_in(jax.random.key(7), step)
    keep = jax.random.bernoulli(rng, 0.8, batch.x.shape)
    pred = jnp.tanh(batch.x * keep @ params["toy"]["kernel"]) @ emb.T
    loss = (pred**2).mean()
    bad = (batch.example_ids == options["bad_example"]).any()
    steep = (batch.example_ids == options["bad_gradient"]).any()
    zero = jnp.where(steep, params["toy"]["bias"].sum() * 0.0, 1.0)
    loss = loss + jnp.where(steep, jnp.sqrt(zero), 0.0)  # slope inf at 0
    return jnp.where(bad, jnp.nan, loss)

  def step(state, index, batch):
    loss, grads = jax.value_and_grad(loss_fn)(
      state.params, index.emb, batch, state.step
    )
    scalars = {
      "loss": loss,
      "grad_norm": jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads))),
      "index_version": index.version,
      "tokens": jnp.int32(BATCH * WIDTH),
    }
    index = index.replace(emb=index.emb * 1.01)
    return state.apply_gradients(grads, tx), index, scalars

  return jax.jit(step, donate_argnums=(0, 1))


def make_refresh(every):
  def refresh(step, state, index, told_to_stop):
    del told_to_stop
    if step == 0 or step % every:
      return index, {}
    emb = jnp.tile(state.params["toy"]["kernel"].sum(0), (3, 1))
    swapped = Index(emb, index.version + 1)
    return swapped, {"swap_norm": float(jnp.linalg.norm(emb))}

  return refresh


def evaluate(state, index):
  yield "norm", jnp.linalg.norm(state.params["toy"]["kernel"])
  yield "version", index.version


def signalled(batches, options):
  """The batches; one comes with a signal to this process, or all take time."""
  if not options["signal_at"] and not options["pause"]:
    return batches
  plain, step = batches.__next__, [0]

  def with_signal(self):
    del self
    step[0] += 1
    time.sleep(options["pause"])
    if step[0] == options["signal_at"]:
      signal.raise_signal(options["signal"])
    return plain()

  kind = type(batches)
  batches.__class__ = type("Signalled", (kind,), {"__next__": with_signal})
  return batches


def run(
  workdir, batches=None, place=None, meter=None, profile=range(0), **changes
):
  """Trains; returns the last state."""
  options = {**DEFAULTS, **changes}
  run_config.claim(workdir, {"train": {"num_steps": options["num_steps"]}})
  mesh = sharding.make_mesh()
  tx = optimizer.bert_adam(
    0.05, 3, 40, b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.01, clip_norm=1.0
  )
  kernel = np.random.default_rng(0).normal(size=(WIDTH, WIDTH))
  params = {
    "toy": {
      "kernel": kernel.astype(np.float32),
      "bias": np.zeros(2, np.float32),
    }
  }
  state = sharding.replicate(TrainState.create(params, tx), mesh)
  state, _ = loop.train(
    step_fn=make_step(tx, options),
    state=state,
    index=sharding.replicate(Index(jnp.ones((3, WIDTH)), jnp.int32(0)), mesh),
    batches=signalled(batches or make_batches(), options),
    schedule=loop.Schedule(*(options[name] for name in loop.Schedule._fields)),
    workdir=workdir,
    checkpoints=checkpoint.Checkpoints(workdir, options["keep"]),
    writer=metrics.MetricsWriter(workdir),
    refresh=make_refresh(options["refresh_every"]),
    evaluators=(("toy", evaluate),),
    meta={"tokenizer_hash": "abc"},
    place_batch=place
    or (lambda batch: sharding.shard_whole_batch(batch, mesh)),
    meter=meter,
    profile=profile,
  )
  return state


def main(workdir, *words):
  options = {k: ast.literal_eval(v) for k, v in (w.split("=") for w in words)}
  if where := os.environ.get(command.PROCESSES):
    distributed.join(where)
  run(workdir, **options)


if __name__ == "__main__":
  with distributed.ending_at_once(), command.clean_exit():
    main(*sys.argv[1:])
