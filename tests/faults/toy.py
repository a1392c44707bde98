"""A run with an index, and its refresh workers, in milliseconds a step.

Loop, checkpoints, refresher, versions, journal and worker are the real ones;
only the models are toys: the embedding of a text is the mean of its words', and
the loss is the score of the best block. Also what a process of the fault tests
runs: `train`, `work` and the like.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import time
import types
from unittest import mock

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from orbax.checkpoint._src.checkpointers import async_checkpointer
from orbax.checkpoint._src.futures import future

from benchmarks import synthetic
from configs import pretrain as pretrain_config
from realm_jax import distributed, files, run_config
from realm_jax.retrieval import follower, heartbeat, refresher, staging
from realm_jax.retrieval import index as versions
from realm_jax.retrieval.contract import Contract
from realm_jax.retrieval.length_buckets import LengthBuckets
from realm_jax.retrieval.modes import refresher_of
from realm_jax.retrieval.refresh import BlockEmbedder
from realm_jax.train import (
  checkpoint,
  loop,
  metrics,
  sealed,
  supervise,
  telemetry,
  worker,
)
from realm_jax.train import pretrain as train_pretrain
from realm_jax.train.build_index import Source
from realm_jax.train.state import TrainState
from realm_jax.types import BlockTokens
from tests.train import toy_run

N, ROWS, SLICE, WORDS, P, C, B = 37, 40, 5, 53, 6, 11, 3
CHUNK = 8  # blocks: 5 chunks
META = {"tokenizer_hash": "t", "corpus_hash": "c", "template": "x"}
TX = optax.sgd(0.5)
CONFIG = {
  "num_steps": 60,
  "checkpoint_every": 5,
  "keep_checkpoints": 2,
  "log_every": 1,
  "every_steps": 10,
  "max_staleness_steps": 0,
  "at_bound": "block",
  "block_seconds": 20.0,
  "poll_steps": 1,
  "replay": "",
  "keep": 1000,
  "step_seconds": 0.0,  # more a step than it takes
}
OPTIONS = worker.Options(
  name="w",
  chunk_blocks=CHUNK,
  poll_seconds=0.05,
  wait_seconds=20.0,
  retries=3,
  backoff_seconds=0.05,
)


@struct.dataclass
class Batch:
  words: np.ndarray  # [B, C]
  example_ids: np.ndarray  # [B]


@dataclasses.dataclass(frozen=True)
class Retrieval:
  """What BlockEmbedder, LengthBuckets and Refresher ask of a Retrieval."""

  num_blocks: int = N
  mesh: None = None

  @property
  def embedder(self):
    return types.SimpleNamespace(
      config=types.SimpleNamespace(retriever_proj_size=P)
    )

  def embed_blocks(self, params, tokens):
    words = tokens.token_ids.astype(jnp.int32)
    seen = jnp.arange(words.shape[-1]) < tokens.lens[..., None]
    emb = params["embedder"]["words"][words] * seen[..., None]
    return emb.sum(-2) / jnp.maximum(tokens.lens[..., None], 1)

  def embed_query(self, params, words):
    return params["embedder"]["words"][words].mean(-2)

  def search(self, block_emb, query_emb, k):
    score = query_emb @ block_emb.T
    score = jnp.where(jnp.arange(score.shape[1]) < N, score, -jnp.inf)
    return jax.lax.top_k(score, k)


class Store:
  """The blocks of the corpus."""

  meta = META

  def __len__(self):
    return N

  def take(self, ids, block_len):
    del block_len
    return jax.tree.map(lambda x: x[ids], blocks())


def blocks(rows=N) -> BlockTokens:
  rng = np.random.default_rng(0)
  ids = np.zeros((rows, C - 3), np.uint16)
  ids[:N] = rng.integers(1, WORDS, (N, C - 3))
  lens = np.zeros(rows, np.int32)
  lens[:N] = rng.integers(1, C - 2, N)
  return BlockTokens(ids, np.zeros(rows, np.int32), lens)


def params(seed=1) -> dict:
  rng = np.random.default_rng(seed)
  words = rng.standard_normal((WORDS, P)).astype(np.float32)
  return {"embedder": {"words": words}}


def make_refresher(workdir, mode="worker", **config):
  """The run's refresher, its words collected in `refresher.said`."""
  config = CONFIG | config
  fields = (field.name for field in dataclasses.fields(Contract))
  said = []
  refresher = refresher_of(mode)(
    BlockEmbedder(Retrieval(), SLICE),
    jax.device_put(blocks(ROWS)),
    Contract(**{name: config[name] for name in fields}),
    workdir=workdir,
    manifest=META,
    keep=config["keep"],
    probe=np.random.default_rng(2).integers(1, WORDS, (7, C)),
    oldest_checkpoint=lambda: min(
      sealed.numbers(checkpoint.folder(workdir)), default=0
    ),
    say=said.append,
  )
  refresher.said = said
  return refresher


def make_state() -> TrainState:
  return jax.device_put(TrainState.create(params(), TX))


@jax.jit
def step(state, index, batch):
  def loss_fn(params):
    query = Retrieval().embed_query(params, batch.words)
    _, ids = Retrieval().search(index.block_emb, query, 1)
    tokens = jax.tree.map(lambda x: x[ids[:, 0]], jax.device_put(blocks()))
    found = Retrieval().embed_blocks(params, tokens)
    return (jnp.tanh(query * found) + 0.1 * query**2).mean()

  loss, grads = jax.value_and_grad(loss_fn)(state.params)
  scalars = {
    "loss": loss,
    "index_version": index.version,
    "index_staleness": state.step - index.params_step,
  }
  return state.apply_gradients(grads, TX), index, scalars


def batches(seconds=0.0):
  def example(i):
    time.sleep(seconds / B)
    rng = np.random.default_rng(i)
    return Batch(rng.integers(1, WORDS, C), np.int64(i))

  data = grain.MapDataset.range(100, 400).shuffle(seed=3).repeat().map(example)
  data = data.batch(
    B, batch_fn=lambda e: jax.tree.map(lambda *x: np.stack(x), *e)
  )
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
  return iter(data.to_iter_dataset(options))


def train(workdir, refresher=None, **config):
  """The whole run, or the rest of it."""
  config = CONFIG | config
  workdir = pathlib.Path(workdir)
  refresher = refresher or make_refresher(workdir, **config)
  refresher.say = metrics.note
  run_config.claim(
    workdir, {"train": {"num_steps": config["num_steps"]},
              "refresh": {"every_steps": config["every_steps"]}},
  )  # fmt: skip
  checkpoints = checkpoint.Checkpoints(workdir, config["keep_checkpoints"])
  state, done = make_state(), checkpoints.latest()
  if done is None:
    versions.start_over(workdir)
    index = refresher.first(state.params)
  else:
    refresher.go_on(done)
    index = refresher.shell(state.params)
  return loop.train(
    step_fn=step,
    state=state,
    index=index,
    batches=batches(config["step_seconds"]),
    schedule=loop.Schedule(
      config["num_steps"], config["log_every"], 0, config["checkpoint_every"]
    ),
    workdir=workdir,
    checkpoints=checkpoints,
    writer=metrics.MetricsWriter(workdir),
    refresh=refresher,
    watch=refresher.watch,
  )


def open_source(workdir, at: int) -> Source:
  """What build_index.open_source is to real runs."""
  read, _, at = checkpoint.restore_params(workdir, at)
  return Source(
    workdir=pathlib.Path(workdir),
    tokenizer=None,
    store=Store(),
    blocks=None,
    buckets=LengthBuckets(Retrieval(), C, 4),
    mesh=jax.sharding.Mesh(jax.devices()[:1], ("data",)),
    params=read["embedder"],
    manifest={
      **META,
      "run": versions.run_id(workdir),
      "params_step": at,
      "params_hash": versions.params_hash(read["embedder"]),
    },
  )


def work(workdir, chunk_seconds=0.0, **options):
  """A worker's life; RUN/chunks.jsonl has a line for each chunk it finished."""
  add = staging.Staging.add

  def logged(stage, chunk, values, *taken):
    time.sleep(chunk_seconds)
    at = files.read_json(stage.path / "identity.json")["params_step"]
    add(stage, chunk, values, *taken)
    with (pathlib.Path(workdir) / "chunks.jsonl").open("a") as f:
      f.write(json.dumps({"params_step": at, "chunk": chunk}) + "\n")

  with mock.patch.object(staging.Staging, "add", logged):
    worker.work(workdir, dataclasses.replace(OPTIONS, **options), open_source)


def train_supervised(workdir, **config):
  """The run, with a worker that it starts, and starts again when it dies."""

  def command(workdir, name):
    work = (
      f"toy.work({str(workdir)!r}, 0.01, name={name!r}, parent={os.getpid()})"
    )
    return [sys.executable, "-c", f"from tests.faults import toy; {work}"]

  with (
    mock.patch.object(supervise, "command", command),
    mock.patch.object(supervise, "_HEALTHY_SECONDS", 0.0),  # the first pause
    supervise.workers(workdir, 1, 60.0),
  ):
    train(workdir, **config)


def job(where, workdir, **options):
  """One process of a job; the loop's own toy run, which knows a mesh."""
  with _joined(where):
    toy_run.run(workdir, **options)


def prepare(folder):
  """60 articles of made-up words for `pretrain`."""
  config = _pretraining()
  config.data.max_articles = 60
  synthetic.prepare_words(config, pathlib.Path(folder))


def pretrain(folder, workdir, where=""):
  """The real pre-training on all devices, small."""
  config = _pretraining()
  config.data.dir = f"{folder}/data"
  with _joined(where) if where else contextlib.nullcontext():
    train_pretrain.pretrain(config, workdir)


def _pretraining():
  config = pretrain_config.get_config("smoke")
  config.embedder.num_hidden_layers = config.encoder.num_hidden_layers = 1
  config.text_weights = (1.0,)
  config.mesh.data = -1
  config.train.batch_size = 8
  config.train.num_steps = 12
  config.train.eval_every = config.train.checkpoint_every = 6
  config.refresh.share = 0.1
  return config


@contextlib.contextmanager
def _joined(where):
  with distributed.ending_at_once():
    distributed.join(where)
    try:
      yield
    except SystemExit as e:
      if e.code:
        raise
    jax.distributed.shutdown()  # forked processes end without JAX's own exit


def with_jumping_clock(function, *args, **kwargs):
  """train or work, on a machine whose clock is set again and again.

  As our modules see it, and those of Orbax that wait for a save.
  """
  rng = np.random.default_rng(5)
  clock = types.SimpleNamespace(**vars(time))
  clock.time = lambda: time.time() + rng.uniform(-1, 1) * 3600
  with contextlib.ExitStack() as stack:
    for module in (
      heartbeat,
      metrics,
      follower,
      worker,
      refresher,
      telemetry,
      future,
      async_checkpointer,
    ):
      stack.enter_context(mock.patch.object(module, "time", clock))
    globals()[function](*args, **kwargs)


def figures(workdir) -> list[dict]:
  """The metrics that are the same in two runs of the same thing."""
  return [
    {k: v for k, v in line.items() if k not in metrics.TIMINGS}
    for line in metrics.read_metrics(workdir)
  ]
