"""The pre-training step beside Hugging Face's REALM: same weights, same work.

  python -m benchmarks.step --peer=hf --peer_python=PEER/bin/python

benchmarks/peer.py says what to install. Both compute the loss and all gradients
of the same batches with the same weights, which are compared first. "ours" has
room for the wordpieces of the fullest batch, as a run has with config.fill; "ours,
with padding" computes every place.

Columns of the table:
  ms        median over interleaved rounds, on batches of several lengths
  of ours   ms / ms of ours, the median of each round's ratio
  GFLOP     of matrix products, counted (realm_jax/plan/cost.py)
  GFLOP/s   GFLOP / ms
  of peak   of the best product of two square float32 matrices in these rounds
"""

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from benchmarks import mips, peer, sized, start
from realm_jax.config import InputError
from realm_jax.models import convert
from realm_jax.models.embedder import RealmScorer
from realm_jax.plan import cost
from realm_jax.pretrained import Pretrained, save_pretrained
from realm_jax.retrieval import candidates
from realm_jax.retrieval.realm import Realm
from realm_jax.retrieval.retrieve import Fill

SCRIPTS = {"hf": "hf_realm.py"}
_BATCHES = 4  # of other lengths, in turn
_LOSSES_AGREE, _GRADIENTS_AGREE = 1e-4, 1e-2


def tight(realm: Realm, batches: list[sized.Given]) -> Realm:
  """With room for the fullest of the batches, and no more."""

  def shares(given: sized.Given):
    joint, _ = realm.join(given.batch, given.blocks)
    block = candidates.block_inputs(given.blocks, realm.retrieval.specials)
    query = given.batch.query
    return [float(x.attention_mask.mean()) for x in (query, block, joint)]

  query, block, joint = np.max([shares(b) for b in batches], axis=0)
  fill = Fill(query=query, block=block, joint=joint)
  retrieval = dataclasses.replace(realm.retrieval, fill=fill)
  return dataclasses.replace(realm, retrieval=retrieval)


def hand_over(
  folder: pathlib.Path, realm: Realm, params: dict, batches: list[sized.Given]
) -> None:
  """Writes weights and batches for the peer."""
  config = realm.encoder.config
  models = {
    "RealmScorer": (RealmScorer(config), {"embedder": params["embedder"]}),
    "RealmKnowledgeAugEncoder": (realm.encoder, params["encoder"]),
  }
  for name, (module, tree) in models.items():
    save_pretrained(folder / name, Pretrained(config, module, tree))
  for i, given in enumerate(batches):
    joint, _ = realm.join(given.batch, given.blocks)
    block = candidates.block_inputs(given.blocks, realm.retrieval.specials)
    shape = given.batch.query.input_ids.shape[0], realm.joint_len
    labels, mask = np.full(shape, -100), np.zeros(shape, np.int32)
    at = given.batch.mlm_positions
    np.put_along_axis(labels, at, given.batch.mlm_targets, axis=1)
    np.put_along_axis(mask, at, given.batch.mlm_mask, axis=1)
    arrays = {
      **_sequences("query", given.batch.query),
      **_sequences("block", block),
      **_sequences("joint", joint),
      "joint/labels": labels,
      "joint/mlm_mask": mask,
    }
    np.savez(folder / f"step_{i}.npz", **arrays)


def _sequences(part, inputs) -> dict[str, np.ndarray]:
  names = ("input_ids", "attention_mask", "token_type_ids")
  return {f"{part}/{name}": np.asarray(getattr(inputs, name)) for name in names}


def differences(
  realm: Realm, value: Any, grads: dict, theirs: Mapping[str, np.ndarray]
) -> tuple[float, float]:
  """Of the losses, and of all gradients as one vector, relative.

  Raises:
    InputError: they are not of the same work.
  """
  scorer = RealmScorer(realm.encoder.config)
  tree = {"embedder": grads["embedder"]}
  ours = convert.to_torch_state(scorer, tree)
  ours |= convert.to_torch_state(realm.encoder, grads["encoder"])
  aliases = {**convert.aliases(scorer), **convert.aliases(realm.encoder)}
  shared = [name for name in ours if name not in aliases]
  if missing := [name for name in shared if name not in theirs]:
    raise InputError(f"--peer: no gradient of {', '.join(missing)}")
  total = sum(np.sum(np.square(theirs[n], dtype=float)) for n in shared)
  apart = sum(
    np.sum(np.square(theirs[n] - ours[n], dtype=float)) for n in shared
  )
  found = (
    abs(float(value) - float(theirs["loss"])),
    float((apart / total) ** 0.5),
  )
  if found[0] > _LOSSES_AGREE or found[1] > _GRADIENTS_AGREE:
    raise InputError(
      f"--peer: losses differ by {found[0]:.1e} (at most {_LOSSES_AGREE}),"
      f" gradients by {found[1]:.1e} (at most {_GRADIENTS_AGREE}): not the same"
      " work"
    )
  return found


def compiled(realm: Realm, params: dict, given: sized.Given) -> Callable:
  """(params, given) -> loss and all gradients."""
  step = jax.jit(jax.value_and_grad(functools.partial(sized.loss, realm)))
  return step.lower(params, given).compile()


def report(sizes: sized.Sizes, python: str, threads: int, rounds: int) -> str:
  """The table.

  Raises:
    InputError: no such peer, or it computes something else.
  """
  padded = sized.make_realm(sizes, sizes.config())
  params = sized.init_params(padded)
  made = [sized.make_batch(sizes, seed) for seed in range(_BATCHES)]
  realms = {"ours": tight(padded, made), "ours, with padding": padded}
  batches = [jax.device_put(given) for given in made]
  steps = {k: compiled(x, params, batches[0]) for k, x in realms.items()}
  flops = {
    name: cost.count(
      jax.value_and_grad(functools.partial(sized.loss, realm)),
      params,
      batches[0],
    ).flops
    for name, realm in realms.items()
  }

  def run(step, i):
    jax.block_until_ready(step(params, batches[i % _BATCHES]))

  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    hand_over(folder, padded, params, made)
    with peer.started(SCRIPTS["hf"], python, folder, threads) as hf:
      theirs = hf.run("step", 0, save=folder / "answer.npz")
      apart = differences(padded, *steps["ours"](params, batches[0]), theirs)
      programs = {k: functools.partial(run, step) for k, step in steps.items()}
      programs["hf"] = lambda i: hf.run("step", i % _BATCHES)
      multiply = mips.peak()
      programs["peak"] = lambda _: multiply()
      seconds = start.interleaved(programs, rounds)
      about = hf.about
  return _table(sizes, threads, about, apart, flops, seconds, made, padded)


def _table(sizes, threads, about, apart, flops, seconds, made, realm) -> str:
  peak = mips.PEAK_FLOPS / seconds.pop("peak").min()
  ours = seconds["ours"]
  lines = [
    " ".join(f"{k}={v}" for k, v in zip(sizes._fields, sizes, strict=True))
    + f", float32, {threads} threads, {jax.devices()[0].device_kind}",
    f"hf: {about}; losses agree to {apart[0]:.0e}, gradients to {apart[1]:.0e}",
    _wordpieces(made, realm),
    "",
    start.row("", "ms", "of ours", "GFLOP", "GFLOP/s", "of peak"),
  ]
  for name, s in seconds.items():
    cells = [f"{1e3 * np.median(s):.0f}", f"{np.median(s / ours):.2f}"]
    if name in flops:
      rate = flops[name] / np.median(s)
      cells += [f"{flops[name] / 1e9:.0f}", f"{rate / 1e9:.0f}"]
      cells += [f"{rate / peak:.0%}"]
    lines.append(start.row(name, *cells))
  return "\n".join([*lines, "", f"peak: {peak / 1e9:.0f} GFLOP/s"])


def _wordpieces(made, realm) -> str:
  """Mean lengths, in words."""
  blocks = np.mean([b.blocks.lens for b in made]) + 3
  query = np.mean([b.batch.query.attention_mask.sum(1) for b in made])
  joint = np.mean(
    [realm.join(*b)[0].attention_mask.sum(-1).mean() for b in made]
  )
  return f"wordpieces: query {query:.0f}, block {blocks:.0f}, joint {joint:.0f}"


def main(f) -> None:
  if not f.peer:
    raise InputError(f"--peer is missing: one of {', '.join(SCRIPTS)}")
  start.use_threads(f.threads)
  print(report(sized.Sizes(), f.peer_python, f.threads, f.rounds))
