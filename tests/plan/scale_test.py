"""Plans for devices that are not here: figures by hand, meshes of many sizes."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import pytest

from configs import ict, pretrain
from realm_jax import backend
from realm_jax.config import InputError
from realm_jax.plan import device, hardware, plan, scale, wire
from realm_jax.plan.plan import Part, Program
from realm_jax.retrieval import mips
from realm_jax.train import programs

ROOT = pathlib.Path(__file__).parents[2]


def test_what_is_sent_by_hand():
  # of 100 on 4 devices each sends 75 to have it all, twice that to sum it
  assert (wire.gathered(100, 4), wire.summed(100, 4)) == (75, 150)
  assert (wire.gathered(100, 1), wire.summed(100, 1)) == (0, 0)
  found = wire.step(
    {"data": 2, "fsdp": 5, "tensor": 3},
    params=1000,
    embedder=400,
    queries=60,
    short_list=7,
    blocks=90,
    embeddings=50,
  )
  assert found == {
    "params": 800 + 320,
    "gradients": 800 + 200,
    "queries": 58,
    "short lists": 7 * 29,
    "blocks": 174,
    "embeddings": 90,
  }
  sizes = {"data": 2, "fsdp": 5, "tensor": 1}
  assert wire.step(sizes, params=0, blocks=90) == {"blocks": 81}  # in parts
  alone = wire.step({"data": 1, "fsdp": 1, "tensor": 1}, 1000, queries=60)
  assert alone == {}


def test_what_a_run_sends():
  config = pretrain.get_config("smoke")
  config.mesh.fsdp = 2
  found = programs.program(config, ".", 407, 4)
  sizes = jax.tree.map(lambda x: x.size * 4, found.args[0].params)
  whole = sum(jax.tree.leaves(sizes))
  own = sum(jax.tree.leaves(sizes["embedder"]))
  b, k, p = 4, 4, 16
  assert found.sent["params"] == pytest.approx(whole / 2 + own / 2, rel=0.01)
  assert found.sent["gradients"] == pytest.approx(whole, rel=0.01)
  assert found.sent["queries"] == b * p * 4 * 3 // 4
  assert found.sent["short lists"] == b * k * 8 * 3
  assert found.sent["blocks"] == b * k * 64 * 3 // 4  # 31 numbers of 16 bits
  sent = programs.program(ict.get_config("smoke"), ".", 407, 4).sent
  assert sent.keys() == {"gradients", "embeddings"}


TOY = hardware.Hardware("toy", "gpu", 5000, 1e3, 1e9, 20.0)


def _product(rows, x):
  return rows @ x


def _make(blocks: int, devices: int) -> Program:
  """A step that does one product, searches its rows, embeds 10 at a time."""
  rows = blocks // devices
  a = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  piece = Part(_product, (a((10, 3)), a((3, 5))), rows // 10)
  return Program(
    step=lambda state, index, batch, tokens: (state, index, batch.sum()),
    args=({}, None, a((7, 2)), a((rows, 3))),
    state_sizes={"params": 90, "optimizer moments": 180},
    parts={
      "joining": Part(_product, (a((2, 3)), a((3, 11)))),
      "search": Part(_product, (a((rows, 3)), a((3, 5)))),
      "refresh slice": piece,
    },
    embed_all=piece,
    refresh_every=7,
    vocab_size=13,
    fields=(),
    devices=devices,
    sent={"gradients": 40, "queries": 20},
  )


def test_rows_by_hand(monkeypatch):
  monkeypatch.setattr(plan, "working", lambda program: {"activations": 700})
  found = list(scale.rows(_make, TOY, (800, 1600), (2, 4)))
  assert [(r.devices, r.blocks) for r in found] == [
    (2, 800), (2, 1600), (4, 800), (4, 1600),
  ]  # fmt: skip
  row = found[1]  # of 800 rows on a device
  assert row.corpus == 800 * 3 * 4
  assert row.memory == 90 + 180 + 800 * 3 * 4 + 7 * 2 * 4 + 700
  assert (row.sent, row.sending) == (60, 3.0)
  assert row.search == pytest.approx(2 * 800 * 3 * 5 / 1e3)
  assert row.step == pytest.approx(row.search + 2 * 2 * 3 * 11 / 1e3)
  assert row.refresh == pytest.approx(80 * 2 * 10 * 3 * 5 / 1e3)
  lines = list(scale.table(found, TOY))
  assert (
    "| 2 | 1,600 | 9.6 kB | 10.6 kB: does not fit | 0.06 kB | 3 s" in lines[3]
  )
  assert "not fit" not in lines[4]


def test_scale_wants_figures_and_an_index():
  with pytest.raises(InputError, match="give --platform"):
    next(scale.rows(_make, TOY._replace(wire=None)))
  no_index = dataclasses.replace(_make(8, 2), embed_all=None)
  with pytest.raises(InputError, match=r"an index: give configs/pretrain\.py"):
    next(scale.rows(lambda *_: no_index, TOY))


def test_a_platform_is_named_and_flags_go_first():
  found = hardware.of_flags("h100", "", "5e14", "")
  assert found == hardware.HARDWARE["h100"]._replace(flops=5e14)
  here = hardware.of_flags("", "70GB", "", "")
  assert (here.backend, here.memory, here.flops) == ("", 70e9, None)
  assert hardware.of_flags("", "", "", "").memory == device.memory()
  with pytest.raises(InputError, match="--platform=h300: wanted one of a100, "):
    hardware.of_flags("h300", "", "", "")


def test_a_program_is_made_for_the_platform():
  def products(kind):
    with backend.planned(kind):
      assert backend.name() == (kind or jax.default_backend())
      return mips.plan(10**6, 512, 8, backend.name()).chunk

  assert products("gpu") == products("tpu") > products("cpu") == products("")


def test_a_platform_has_no_copies_of_the_cpu():
  def spread(x):
    return ((x - x.mean()) ** 2).sum(0)

  part = Part(spread, (jax.ShapeDtypeStruct((300, 3), jnp.float32),))
  written = {}
  for kind in ("cpu", "gpu"):
    with backend.planned(kind):
      written[kind] = plan.cost_of(part).bytes
  # the mean, as large as what it is taken from, is written and read
  assert written["cpu"] - written["gpu"] > 1.9 * 300 * 3 * 4


def test_the_command_lists_every_platform():
  text = (ROOT / "experiments/plan.py").read_text()  # imported, its flags
  assert f'"{", ".join(hardware.HARDWARE)};' in text  # would be there twice
