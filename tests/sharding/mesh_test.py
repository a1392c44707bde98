"""Mesh, rules and placement, on as many devices as the process has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from realm_jax import sharding
from realm_jax.config import InputError
from realm_jax.retrieval import refresh
from realm_jax.train import optimizer
from realm_jax.train.state import TrainState
from tests.train.bert_numbers import BERT

DEVICES = jax.device_count()
eight_devices = pytest.mark.skipif(DEVICES != 8, reason="wants 8 devices")


def test_default_mesh_takes_every_device_and_leaves_jit_in_charge():
  mesh = sharding.make_mesh()
  assert dict(mesh.shape) == {"data": DEVICES, "fsdp": 1, "tensor": 1}
  assert mesh.axis_types == (AxisType.Auto,) * 3


def test_mesh_of_fewer_devices():
  assert sharding.make_mesh(data=1).size == 1


@pytest.mark.parametrize("data", [0, -2, DEVICES + 1])
def test_impossible_mesh_is_named(data):
  with pytest.raises(InputError, match=rf"data={data}.*there are {DEVICES}"):
    sharding.make_mesh(data=data)


def test_batch_rows_keep_their_order_on_the_mesh():
  mesh = sharding.make_mesh()
  rows = np.arange(DEVICES * 2 * 3).reshape(DEVICES * 2, 3)
  batch = sharding.shard_batch({"a": rows, "b": rows[:, 0], "c": None}, mesh)
  np.testing.assert_array_equal(batch["a"], rows)
  np.testing.assert_array_equal(batch["b"], rows[:, 0])
  for i, shard in enumerate(
    sorted(batch["a"].addressable_shards, key=lambda s: s.device.id)
  ):
    np.testing.assert_array_equal(shard.data, rows[2 * i : 2 * i + 2])


@eight_devices
def test_batch_that_does_not_split_is_named():
  with pytest.raises(InputError, match="9 rows does not split over 8"):
    sharding.shard_batch({"a": np.zeros((9, 2))}, sharding.make_mesh())


def test_rows_from_host_and_from_device():
  mesh = sharding.make_mesh()
  num = refresh.padded_rows(DEVICES * 3 - DEVICES // 2, mesh.size, 1)
  assert num == DEVICES * 3
  rows = np.arange(num * 5).reshape(num, 5)
  for source in (rows, jnp.asarray(rows)):
    placed = sharding.shard_rows(source, mesh)
    np.testing.assert_array_equal(placed, rows)
    assert {s.data.shape for s in placed.addressable_shards} == {(3, 5)}


def test_replicated_tree_is_whole_on_every_device():
  tree = sharding.replicate({"a": np.arange(3)}, sharding.make_mesh())
  assert [s.data.shape for s in tree["a"].addressable_shards] == [
    (3,)
  ] * DEVICES


def _state() -> TrainState:
  params = {
    "embedder": {
      "word_embeddings": {"embedding": jnp.ones((12, 6))},
      "layers_0": {
        "attention": {"qkv_kernel": jnp.ones((6, 18))},
        "output": {"kernel": jnp.ones((10, 6)), "bias": jnp.ones((6,))},
        "output_norm": {"scale": jnp.ones((6,))},
      },
    }
  }
  tx = optimizer.bert_adam(1e-3, 2, 5, lr_scales={"embedder": 0.5}, **BERT)
  return TrainState.create(params, tx)


def _specs(tree) -> dict[str, P]:
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf.spec
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


@eight_devices
def test_moments_lie_where_their_parameter_lies():
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  specs = _specs(sharding.infer_shardings(_state(), sharding.RULES, mesh))
  for name in ("word_embeddings/embedding", "layers_0/output/kernel"):
    found = {spec for path, spec in specs.items() if path.endswith(name)}
    assert found == {P("tensor", "fsdp")}, name
    assert sum(path.endswith(name) for path in specs) == 3  # params, mu, nu
  assert specs["params/embedder/layers_0/attention/qkv_kernel"] == P(
    "fsdp", "tensor"
  )
  assert specs["step"] == P()


@eight_devices
def test_dimension_that_does_not_divide_stays_whole():
  mesh = sharding.make_mesh(data=1, fsdp=8)
  specs = _specs(sharding.infer_shardings(_state(), sharding.RULES, mesh))
  kernel = "params/embedder/layers_0/output/kernel"
  assert specs[kernel] == P("tensor", None)
  state = jax.device_put(
    _state(), sharding.infer_shardings(_state(), sharding.RULES, mesh)
  )
  assert state.params["embedder"]["layers_0"]["output"]["kernel"].shape == (
    10,
    6,
  )


def test_first_matching_rule_wins_and_no_match_raises():
  mesh = sharding.make_mesh(data=1)
  shapes = {"a": {"kernel": jax.ShapeDtypeStruct((4, 2), jnp.float32)}}
  rules = ((r"a/kernel", P("fsdp")), (r"kernel", P("tensor")))
  specs = _specs(sharding.infer_shardings(shapes, rules, mesh))
  assert specs == {"a/kernel": P("fsdp")}
  with pytest.raises(ValueError, match=r"no sharding rule matches a/kernel"):
    sharding.infer_shardings(shapes, ((r"bias", P()),), mesh)
