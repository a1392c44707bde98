"""Training that goes on while somebody else embeds the corpus.

Workers (train/worker.py) publish index versions that they make of the run's
checkpoints. Here the trainer looks for new ones, loads and verifies them in the
background, and swaps at a step boundary. Which version is searched since which
step depends on how fast a worker is, so it is written down before it takes
effect, in swaps.jsonl: a run that follows that journal is the same bit for bit.
"""

import collections
import pathlib
import time
from typing import Any

from realm_jax import distributed, files
from realm_jax.config import InputError
from realm_jax.retrieval import heartbeat, journal
from realm_jax.retrieval import index as versions
from realm_jax.retrieval import manifest as manifests
from realm_jax.retrieval.contract import TooOld
from realm_jax.retrieval.loading import Loading
from realm_jax.retrieval.refresher import Fresh, Refresher
from realm_jax.sharding import fetch

_LOOK_SECONDS = 0.05  # between two looks of a trainer that waits
_SAY_SECONDS = 30.0  # between two lines about that


class Follower(Refresher):
  """Swaps in the versions that workers publish, or those that a journal names.

  As Refresher. In a job of several processes the first decides for all.

  Raises:
    InputError: the journal to replay names a version that is not there.
  """

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self._workers = heartbeat.Watch(self.workdir)
    self._loading: Loading | None = None
    self._settled: set[int] = set()  # versions not to look at again
    self._version = self._params_step = None  # of the index, as the host knows
    self._said_late = False
    self._plan: collections.deque[dict] = collections.deque()
    if self.contract.replay:
      self._source = pathlib.Path(self.contract.replay).parent.parent
      self._follow(_read_replay(self.contract.replay))
    else:
      self._source = self.workdir

  def go_on(self, step: int) -> None:
    """Swaps since then are gone through again, as the journal has them."""
    if self.contract.replay:
      super().go_on(step)
      self._plan = collections.deque(s for s in self._plan if s["step"] >= step)
      return
    swaps = journal.read_swaps(self.workdir, step)
    self._follow(swaps)
    if swaps:
      self.say(
        f"{self.workdir}: {len(swaps)} swaps after step {step} come again as"
        " the journal has them"
      )

  def watch(self, step, figures):
    """Also how many workers are alive, and steps_past_bound."""
    seen = super().watch(step, figures)
    if bound := self.contract.max_staleness_steps:
      late = int(figures.get("index_staleness", 0)) - bound
      seen["steps_past_bound"] = max(late, 0)
    return seen if self.contract.replay else seen | self._workers.figures()

  def _follow(self, swaps: list[dict]) -> None:
    """Will swap as these lines say; all their versions must be there."""
    for swap in swaps:
      path = versions.find_version(self._source, swap["version"])
      made = manifests.read(path)
      expect = {"params_hash": swap["params_hash"], **self._expect()}
      manifests.check(path, made, expect)
    self._plan = collections.deque(swaps)

  def _expect(self) -> dict[str, Any]:
    """What the manifest of a version of this run has."""
    manifest = dict(self._manifest if self.contract.replay else self.manifest)
    retrieval = self.embedder.retrieval
    size = retrieval.embedder.config.retriever_proj_size
    return {**manifest, "shape": [retrieval.num_blocks, size]}

  def _refresh(self, step, state, index, told_to_stop):
    if self._version is None:
      self._version = int(index.version)
      self._params_step = int(index.params_step)
    if self._plan and self._plan[0]["step"] == step:
      return self._swap_planned(step, state, index)
    if self._plan or self.contract.replay:
      return index, {}
    late = self._is_late(step)
    if late or step % self.contract.poll_steps == 0:
      least = self._least(step) if late else self._params_step + 1
      if found := self._look(step, least):
        return self._take(step, state, index, found, self._begin(state))
    if not late:
      return index, {}
    return self._at_bound(step, state, index, told_to_stop)

  def _is_late(self, step: int) -> bool:
    bound = self.contract.max_staleness_steps
    return bound > 0 and step - self._params_step > bound

  def _least(self, step: int) -> int:
    """The oldest params that keep the bound at this step."""
    if self.contract.at_bound == "continue":
      return self._params_step + 1  # anything newer is better
    return step - self.contract.max_staleness_steps

  def _look(self, step: int, least: int) -> Loading | None:
    """The newest version of params from `least` to `step`, once it is loaded."""
    if self._loading is None:
      version = distributed.by_process_0(lambda: self._newest(step, least))
      if version is None:
        return None
      self._loading = self._load(self._source, version)
    if not self._loading.is_done():
      return None
    loading, self._loading = self._loading, None
    try:
      made = loading.result()[1]
    except InputError as e:
      self._refuse(loading.version, e)
      return None
    return loading if made["params_step"] >= least else None

  def _newest(self, step: int, least: int) -> int | None:
    """The number of a version that fits; one that doesn't is named once."""
    expect = self._expect()
    for version in reversed(versions.list_versions(self.workdir)):
      if version in self._settled:
        continue
      try:
        path = versions.find_version(self.workdir, version)
        made = manifests.read(path)
        manifests.check(path, made, expect)
      except (InputError, OSError) as e:
        self._refuse(version, e)
        continue
      if made["params_step"] < least:
        self._settled.add(version)  # and will never be newer
      elif made["params_step"] <= step:
        return version
    return None

  def _refuse(self, version: int, why: Exception) -> None:
    self._settled.add(version)
    self.say(
      f"index version {version} is not used, {self._version} still is: {why}"
    )

  def _load(self, run_dir: pathlib.Path, version: int) -> Loading:
    return Loading(run_dir, version, self._expect(), *self._my_blocks())

  def _take(
    self, step, state, index, found, began, publish: bool = False
  ) -> tuple[Any, dict]:
    """Swaps in a loaded version."""
    block_emb, made = found.result()
    fresh = Fresh(
      self._place(block_emb, found.first),
      made["version"],
      made["params_step"],
      made["params_hash"],
    )
    files.fail_point("swap")
    index, figures = self._swap(step, state, index, fresh, began, publish)
    self._now_is(fresh)
    blocks = made["shape"][0] / max(made["seconds"], 1e-3)
    return index, {**figures, "refresh_blocks_per_second": blocks}

  def _now_is(self, fresh: Fresh) -> None:
    self._version, self._params_step = fresh.version, fresh.params_step
    self._said_late = False
    self._retain(fresh.version)

  def _swap_planned(self, step, state, index):
    swap, began = self._plan[0], self._begin(state)
    found = self._load(self._source, swap["version"])
    own = bool(self.contract.replay)  # then this run has no version of it yet
    index, figures = self._take(step, state, index, found, began, publish=own)
    self._plan.popleft()
    return index, figures

  def _write_down(self, swap):
    if not self._plan or self.contract.replay:  # else it is written already
      super()._write_down(swap)
    files.fail_point("swap_written")

  def _at_bound(self, step, state, index, told_to_stop):
    how = self.contract.at_bound
    if not self._said_late:
      self._said_late = True
      self.say(
        f"step {step}: {self._how_late(step)}; workers:"
        f" {self._workers.in_words()}; refresh.at_bound={how}"
      )
    if how == "continue":
      return index, {}
    began = self._begin(state)
    if how == "inline":
      return self._embed_here(step, state, index, began)
    found = self._wait(step, told_to_stop)
    blocked = time.monotonic() - began
    index, figures = self._take(step, state, index, found, began)
    return index, {**figures, "blocked_seconds": blocked}

  def _embed_here(self, step, state, index, began):
    params = state.params["embedder"]
    block_emb = self.embedder.embed_all(params, self.tokens)
    made = {
      **self.manifest,
      "params_step": step,
      "params_hash": versions.params_hash(fetch(params)),
      "seconds": time.monotonic() - began,
    }
    num_rows = self.embedder.retrieval.num_blocks
    version = versions.publish_next(self.workdir, block_emb, made, num_rows)
    fresh = Fresh(block_emb, version, step, made["params_hash"])
    index, figures = self._swap(step, state, index, fresh, began, publish=False)
    self._now_is(fresh)
    return index, figures

  def _wait(self, step, told_to_stop):
    """Looks until there is a version that keeps the bound."""
    least = self._least(step)
    end = time.monotonic() + self.contract.block_seconds
    said = time.monotonic()
    while (found := self._look(step, least)) is None:
      now = time.monotonic()
      late = distributed.by_process_0(lambda now=now: now > end)
      if told_to_stop() or late:
        raise TooOld(
          f"{self._how_late(step)} and no newer one has come in"
          f" refresh.block_seconds={self.contract.block_seconds:g}; workers:"
          f" {self._workers.in_words()}: start one with python -m"
          f" experiments.refresh_worker --workdir={self.workdir}, then this"
          " command again, or give --config.refresh.at_bound=continue"
        )
      if now - said > _SAY_SECONDS:
        said = now
        self.say(
          f"step {step}: waiting for a newer index; workers:"
          f" {self._workers.in_words()}"
        )
      time.sleep(_LOOK_SECONDS)
    return found

  def _how_late(self, step: int) -> str:
    return (
      f"index version {self._version} is of step {self._params_step}, more than"
      f" refresh.max_staleness_steps={self.contract.max_staleness_steps} before"
      f" step {step}"
    )


def _read_replay(path: str) -> list[dict]:
  """The lines of RUN/index/swaps.jsonl, of another run."""
  given = pathlib.Path(path)
  if not given.is_file() or given.parent.name != "index":
    raise InputError(
      f"config refresh.replay={path}: wanted another run's index/swaps.jsonl"
    )
  return journal.read_swaps(given.parent.parent)
