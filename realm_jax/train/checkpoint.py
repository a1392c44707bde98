"""Checkpoints that are whole and checked: Orbax with a sha256 sidecar.

Orbax writes `checkpoints/<step>.orbax-checkpoint-tmp` in the background and
renames it. Just before the rename we seal it (see sealed.py), so that what can
be seen under a step's number is complete, on the disk, and checked to the last
byte when it is read: Orbax alone calls no fsync and restores flipped bytes
without a word.
"""

import contextlib
import errno
import logging
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from realm_jax import files
from realm_jax.config import InputError
from realm_jax.train import sealed

_STILL_CHANGES = "_CHECKPOINT_METADATA"  # Orbax adds the time of the rename
_SAVE_SECONDS = 20 * 60.0  # that a save may take; by a clock that never jumps
# Orbax's own bound is by the wall clock: more than that is ever set back by,
# and as many milliseconds as an int32 holds.
_ORBAX_SECONDS = 20 * 24 * 3600
# What a disk may do to a save -> what it is, and the mend.
_DISK = {
  errno.ENOSPC: ("no space left", "free some"),
  errno.EDQUOT: ("no space left", "free some"),
  errno.EIO: (os.strerror(errno.EIO), "look at it"),
}

# Orbax logs each error with a traceback, and raises it as well.
logging.getLogger("absl").addFilter(lambda r: "/orbax/" not in r.pathname)


class Checkpoints:
  """The checkpoints of one run; at most one save is under way.

  Attributes:
    path: WORKDIR/checkpoints.
  """

  def __init__(self, workdir: str | os.PathLike, keep: int = 3):
    """Opens them; writes nothing, so a running run's can be opened too.

    Args:
      workdir: the run's directory.
      keep: how many of the newest checkpoints stay, at least 1.
    """
    if keep < 1:
      raise InputError(
        f"config train.keep_checkpoints={keep}: wanted 1 or more"
      )
    self.path = folder(workdir)
    self._keep = keep
    self._saving: int | None = None
    self._checkpointer = ocp.AsyncCheckpointer(
      ocp.CompositeCheckpointHandler(),
      async_options=ocp.AsyncOptions(
        timeout_secs=_ORBAX_SECONDS,
        post_finalization_callback=self._seal,
        # waits for these by the wall clock, too
        create_directories_asynchronously=False,
      ),
    )

  def save(
    self,
    step: int,
    tree: Any,
    iterator: Iterator | None = None,
    meta: Mapping[str, Any] | None = None,
  ) -> None:
    """Starts a save, which counts once it is complete; see `wait`.

    The arrays are copied before this returns, so they may be donated.

    Args:
      step: steps done, the checkpoint's name.
      tree: pytree of arrays, {"state": ..., "index": ...}.
      iterator: Grain iterator whose position is saved: the same in every
        process.
      meta: anything JSON can hold.

    Raises:
      InputError: the disk is full or fails, in this save or the one before.
    """
    self.wait()
    items = {
      "tree": ocp.args.StandardSave(tree),
      "meta": ocp.args.JsonSave({"step": step, **(meta or {})}),
    }
    if iterator is not None:
      items["batches"] = ocp.args.JsonSave(iterator.get_state())
    self._remove_unsealed()  # what a killed save has left
    self._saving = step
    with self._disk_in_one_line():
      self._checkpointer.save(
        self.path / str(step), args=ocp.args.Composite(**items)
      )

  def wait(self) -> None:
    """Waits for the save under way, then drops the oldest checkpoints.

    Raises:
      InputError: the disk is full or fails, and nothing of the save remains;
        or it takes too long.
    """
    if self._saving is None:
      return
    ended = self._wait_for_orbax()
    with self._disk_in_one_line():
      ended.result()
      files.fsync(self.path)
    self._saving = None
    if jax.process_index() == 0:
      for step in sealed.numbers(self.path)[: -self._keep]:
        sealed.remove(self.path / str(step))

  def latest(self) -> int | None:
    """The newest complete checkpoint's step, None if there is none."""
    self.wait()
    return max(sealed.numbers(self.path), default=None)

  def meta(self, step: int) -> dict[str, Any]:
    """What was kept beside a checkpoint's arrays."""
    return _read_meta(self.path, step)

  def shapes(self, step: int) -> dict[str, tuple[int, ...]]:
    """Names, such as "index/block_emb", and shapes of a checkpoint's arrays."""
    return _saved_shapes(self.path / str(step))

  def restore(
    self, step: int, tree_like: Any, iterator: Iterator | None = None
  ) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint back, onto the devices of `tree_like`.

    Args:
      step: one of those saved.
      tree_like: pytree of arrays with the shapes and shardings wanted.
      iterator: Grain iterator, set to where it was.

    Returns:
      The tree and the meta of the save.

    Raises:
      InputError: a file is not what was saved, or the tree is another one.
    """
    sealed.verify(self.path, step)
    _check_fits(self.path / str(step), tree_like)
    like = jax.tree.map(ocp.utils.to_shape_dtype_struct, tree_like)
    items = {
      "tree": ocp.args.StandardRestore(like),
      "meta": ocp.args.JsonRestore(),
    }
    if iterator is not None:
      items["batches"] = ocp.args.JsonRestore()
    read = self._checkpointer.restore(
      self.path / str(step), args=ocp.args.Composite(**items)
    )
    if iterator is not None:
      iterator.set_state(read["batches"])
    tree = jax.tree.map(_as_free_as, read["tree"], tree_like)
    return tree, read["meta"]

  def close(self) -> None:
    """Waits for the save under way and ends Orbax's threads."""
    self.wait()
    self._checkpointer.close()

  def _seal(self) -> None:
    """Runs in the saving thread of process 0 when all files are written."""
    (tmp,) = self.path.glob(f"{self._saving}.orbax-checkpoint-tmp*")
    files.fail_point("checkpoint_seal")
    sealed.seal(tmp, leave_out=(_STILL_CHANGES,))
    files.fail_point("checkpoint_sealed")

  @contextlib.contextmanager
  def _disk_in_one_line(self) -> Iterator[None]:
    try:
      yield
    except Exception as e:
      step, self._saving = self._saving, None
      self._remove_unsealed()
      if (code := _disk_error(e)) is None:
        raise
      newest, (what, mend) = self._newest(), _DISK[code]
      raise InputError(
        f"{what} on the disk of {self.path} while saving step {step} (newest"
        f" checkpoint: {newest}): {mend} and run the same command again"
      ) from e

  def _wait_for_orbax(self) -> futures.Future:
    """Returns what came of the save."""
    ended = futures.Future()

    def wait():
      try:
        ended.set_result(self._checkpointer.wait_until_finished())
      except BaseException as e:  # it is raised where the result is asked for
        ended.set_exception(e)

    threading.Thread(target=wait, daemon=True).start()
    done, _ = futures.wait([ended], timeout=_SAVE_SECONDS)
    if not done:
      raise InputError(
        f"{self.path}: step {self._saving} is not saved after"
        f" {_SAVE_SECONDS:g} s (newest checkpoint: {self._newest()}): is the"
        " disk at work? Run the same command again"
      )
    return ended

  def _newest(self) -> int | str:
    return max(sealed.numbers(self.path), default="none")

  def _remove_unsealed(self) -> None:
    if jax.process_index() == 0 and self.path.exists():
      sealed.remove_unsealed(self.path)


def restore_params(
  workdir: str | os.PathLike, step: int | None = None
) -> tuple[Any, dict[str, Any], int]:
  """Reads the params of a run's checkpoint and nothing else of it.

  Args:
    workdir: the run's directory.
    step: which one; None for the newest.

  Returns:
    The params as numpy arrays, the meta of the save, and the step.

  Raises:
    InputError: there is no such checkpoint, or a file is not what was saved.
  """
  path = folder(workdir)
  steps = sealed.numbers(path)
  if step is None and not steps:
    raise InputError(f"{path}: no checkpoint here; has this run been trained?")
  step = steps[-1] if step is None else step
  sealed.verify(path, step)
  with ocp.PyTreeCheckpointer() as reader:
    saved = reader.metadata(path / str(step) / "tree").item_metadata.tree
    wanted = {"state": {"params": saved["state"]["params"]}}
    read = reader.restore(
      path / str(step) / "tree",
      args=ocp.args.PyTreeRestore(
        item=wanted,
        restore_args=jax.tree.map(
          lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted
        ),
        partial_restore=True,
      ),
    )
  params = read["state"]["params"]
  _check_layout(path / str(step), params)
  return params, _read_meta(path, step), step


def _check_layout(path: pathlib.Path, params: Any) -> None:
  """Refuses params whose queries, keys and values share an axis."""
  for where, leaf in jax.tree_util.tree_leaves_with_path(params):
    if "qkv_kernel" in jax.tree_util.keystr(where) and leaf.ndim != 3:
      raise InputError(
        f"{path} is of an older version of realm-jax, its params have other"
        " shapes: train the run again"
      )


def folder(workdir: str | os.PathLike) -> pathlib.Path:
  """The directory of a run's checkpoints."""
  return pathlib.Path(workdir).absolute() / "checkpoints"


def _read_meta(path: pathlib.Path, step: int) -> dict[str, Any]:
  return files.read_json(path / str(step) / "meta" / "metadata")


def _as_free_as(array: jax.Array, like: Any) -> jax.Array:
  """Uncommitted where `like` is: jit may then still move it to the mesh."""
  if getattr(like, "committed", True):
    return array
  return jax.device_put(np.asarray(array))


def _check_fits(checkpoint: pathlib.Path, tree_like: Any) -> None:
  """Compares names and shapes with those saved; Orbax would tell it at length."""
  saved, wanted = _saved_shapes(checkpoint), _shapes(tree_like)
  for name in sorted(saved.keys() | wanted.keys()):
    if saved.get(name) != wanted.get(name):
      raise InputError(
        f"{checkpoint} is of another model: {name} is"
        f" {saved.get(name, 'missing')} there and {wanted.get(name, 'missing')}"
        " here; take the config it was saved with, or another workdir"
      )


def _saved_shapes(checkpoint: pathlib.Path) -> dict[str, tuple[int, ...]]:
  with ocp.PyTreeCheckpointer() as reader:
    return _shapes(reader.metadata(checkpoint / "tree").item_metadata.tree)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _disk_error(e: BaseException) -> int | None:
  """The errno, where the disk is the cause; TensorStore tells it in words."""
  if getattr(e, "errno", None) in _DISK:
    return e.errno
  for code in _DISK:
    if os.strerror(code) in str(e):
      return code
  return None if e.__cause__ is None else _disk_error(e.__cause__)
