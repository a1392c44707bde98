"""Refresh by its share of a step: counted, settled once, kept by the run."""

import functools
import json
import types

import jax.numpy as jnp
import pytest

from benchmarks.plan import planned_corpus
from configs import finetune, pretrain
from realm_jax import run_config
from realm_jax.config import InputError
from realm_jax.plan import plan
from realm_jax.plan.cost import Cost
from realm_jax.plan.plan import Part
from realm_jax.retrieval import refresh
from realm_jax.train import finetune as train_finetune
from realm_jax.train import pretrain as train_pretrain
from realm_jax.train import share

BLOCKS = 407


def of(module=pretrain, **changes):
  config = module.get_config("smoke")
  config.encoder.num_hidden_layers = 1
  config.embedder.num_hidden_layers = 1
  config.refresh.update({"mode": "interleaved", **changes})
  return config


def made_up(config, corpus, more=10_000):
  """2 x 30,000 products a step, 2 x 45 a block, of which a slice has some. A step
  moves 42,400 bytes and 8 for each of `more`, 32 blocks 7,692."""
  assert config.refresh.mode == "never"
  one, slice_size = jnp.zeros((1, 3)), config.refresh.slice_size

  def multiply(x, w):
    return x @ w

  def step(x, w, y):
    return x @ w, y + 1

  return types.SimpleNamespace(
    step=step,
    args=(jnp.zeros((100, 3)), jnp.zeros((3, 100)), jnp.zeros(more)),
    embed_all=Part(multiply, (jnp.zeros((slice_size * 15, 3)), one.T), 7),
    devices=corpus.mesh.size,
  )


def settled(config, workdir, devices=1, make=made_up):
  corpus = planned_corpus(config, devices, BLOCKS)
  return share.settled(config, workdir, corpus, lambda c: make(c, corpus))


@pytest.mark.parametrize(
  ("wanted", "devices", "size", "every"),
  [
    (0.0604, 1, 40, 11),
    (0.03, 2, 20, 11),
    (0.0007, 2, 1, 204),
    (1.0, 4, 102, 1),
  ],
)
def test_a_step_embeds_its_share(
  tmp_path, capsys, wanted, devices, size, every
):
  """Of 30,000: 1,812 are 40.3 blocks of 45. Never less than one block, never
  more than there are; and no step is idle."""
  big = functools.partial(made_up, more=10**7)  # which waits for no memory
  config = settled(of(share=wanted), tmp_path, devices, big)
  assert config.refresh.slice_size == size
  assert config.refresh.every_steps == every
  rows = refresh.padded_rows(BLOCKS, devices, size)
  assert every == rows // (devices * size)
  said = capsys.readouterr().err
  assert f"refresh.share={wanted:g}: a step embeds {size} blocks" in said
  assert f"a new version every {every} steps; " in said
  assert f"; {size * 45 / 30_000:.1%} on top of the 60 kFLOP of a step" in said
  assert "of the 80 MB that it moves" in said


@pytest.mark.parametrize(("wanted", "size"), [(0.07, 36), (0.02, 10)])
def test_or_its_share_of_the_memory_traffic(tmp_path, capsys, wanted, size):
  """Of 122,400 bytes: 8,568 are 35.6 blocks of 240.4."""
  config = settled(of(share=wanted), tmp_path)
  assert config.refresh.slice_size == size
  moved = f"{size * 7692 / 32 / 122_400:.1%} of the 122 kB that it moves"
  assert moved in capsys.readouterr().err


@pytest.mark.nightly
@pytest.mark.parametrize(
  ("module", "make", "devices", "wanted"),
  [
    (pretrain, train_pretrain.program, 2, 0.35),
    (finetune, train_finetune.program, 1, 0.4),
  ],
)
def test_the_plan_agrees(tmp_path, module, make, devices, wanted):
  """By the parts of the plan, not by the step that settling looked at."""
  config = settled(of(module, share=wanted), tmp_path, devices, make)
  assert config.refresh.slice_size != of(module).refresh.slice_size
  program = make(config, planned_corpus(config, devices, BLOCKS))
  costs = dict(plan.parts(program))
  took = costs.pop("refresh slice")
  rest = functools.reduce(Cost.plus, costs.values())
  assert max(share.shares(took, rest)) == pytest.approx(wanted, rel=0.1)


def test_a_run_that_goes_on_has_what_it_began_with(tmp_path, capsys):
  began = of(share=0.3, slice_size=9, every_steps=46)
  run_config.claim(tmp_path, began.to_dict())

  def recount(config):
    raise AssertionError(config)

  again = of(share=0.3)
  corpus = planned_corpus(again, 8, BLOCKS)
  assert share.settled(again, tmp_path, corpus, recount) == began
  run_config.claim(tmp_path, began.to_dict())
  assert f"as {tmp_path} began" in capsys.readouterr().err
  for other in (0.0, 0.2):
    config = share.settled(of(share=other), tmp_path, corpus, recount)
    with pytest.raises(InputError, match=f"refresh.share=0.3, not {other}:"):
      run_config.claim(tmp_path, config.to_dict())


def test_what_a_run_began_with_is_told_to_other_processes(tmp_path):
  """distributed.by_process_0 sends JSON."""
  run_config.claim(tmp_path, of(share=0.3).to_dict())
  held = share._recorded(tmp_path)
  assert json.loads(json.dumps(held)) == held
  assert held["share"] == 0.3
  assert share._recorded(tmp_path / "none") is None


def test_without_a_share_all_is_as_given(tmp_path):
  given = of()
  assert settled(given, tmp_path, make=None) is given


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"share": 1.5}, r"refresh.share=1.5: wanted 0 to 1"),
    ({"share": -0.1}, r"refresh.share=-0.1: wanted 0 to 1"),
    ({"share": 0.1, "mode": "worker"}, r"with refresh.mode=worker no step"),
  ],
)
def test_a_share_that_cannot_be_is_refused(tmp_path, changes, message):
  with pytest.raises(InputError, match=message):
    settled(of(**changes), tmp_path, make=None)
