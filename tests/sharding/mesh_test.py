"""Mesh, rules and placement, on as many devices as the process has."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from realm_jax import sharding
from realm_jax.config import InputError
from realm_jax.retrieval import refresh
from realm_jax.train import checkpoint, optimizer
from realm_jax.train.state import TrainState
from tests import tiny_realm as tiny
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
        "attention": {"qkv_kernel": jnp.ones((6, 3, 6))},
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
    "fsdp", None, "tensor"
  )
  assert specs["step"] == P()


@eight_devices
def test_dimension_that_does_not_divide_stays_whole():
  mesh = sharding.make_mesh(data=1, fsdp=8)
  specs = _specs(sharding.infer_shardings(_state(), sharding.RULES, mesh))
  kernel = "params/embedder/layers_0/output/kernel"
  assert specs[kernel] == P()  # of one device along tensor, 6 by 8 along fsdp
  qkv = "params/embedder/word_embeddings/embedding"
  assert specs[qkv] == P()
  state = jax.device_put(
    _state(), sharding.infer_shardings(_state(), sharding.RULES, mesh)
  )
  assert state.params["embedder"]["layers_0"]["output"]["kernel"].shape == (
    10,
    6,
  )


@eight_devices
def test_first_matching_rule_wins_and_no_match_raises():
  mesh = sharding.make_mesh(2, 2, 2)
  shapes = {"a": {"kernel": jax.ShapeDtypeStruct((4, 2), jnp.float32)}}
  rules = ((r"a/kernel", P("fsdp")), (r"kernel", P("tensor")))
  specs = _specs(sharding.infer_shardings(shapes, rules, mesh))
  assert specs == {"a/kernel": P("fsdp")}
  with pytest.raises(ValueError, match=r"no sharding rule matches a/kernel"):
    sharding.infer_shardings(shapes, ((r"bias", P()),), mesh)


@pytest.mark.parametrize(
  ("sizes", "want"),
  [
    ((-1, 1, 1), (24, 1, 1)),
    ((-1, 2, 3), (4, 2, 3)),
    ((2, -1, 3), (2, 4, 3)),
    ((4, 3, 2), (4, 3, 2)),
    ((2, 2, 1), (2, 2, 1)),  # some of the devices
  ],
)
def test_sizes_of_a_mesh(sizes, want):
  found = sharding.mesh_sizes(24, *sizes)
  assert tuple(found) == sharding.AXES and tuple(found.values()) == want


@pytest.mark.parametrize(
  "sizes", [(-1, 5, 1), (-1, -1, 2), (25, 1, 1), (5, 5, 1), (0, 1, 1)]
)
def test_sizes_that_are_no_mesh_are_named(sizes):
  data, fsdp, tensor = sizes
  named = f"data={data}, fsdp={fsdp}, tensor={tensor}, and there are 24"
  with pytest.raises(InputError, match=named):
    sharding.mesh_sizes(24, *sizes)


def test_every_matrix_of_the_models_has_its_rule():
  """On a mesh that divides everything, no matrix is whole."""
  mesh = sharding.planned_mesh({"data": 1, "fsdp": 2, "tensor": 3})
  sizes = dataclasses.replace(
    tiny.SIZES, vocab_size=54, intermediate_size=24, retriever_proj_size=6,
    span_hidden_size=6,
  )  # fmt: skip
  shapes = tiny.params(sizes, sizes)
  specs = _specs(sharding.infer_shardings(shapes, sharding.RULES, mesh))
  along = {axis: set() for axis in ("fsdp", "tensor")}
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for axis, names in along.items():
      if axis in specs[name]:
        names.add(name)
    assert leaf.ndim == 1 or "fsdp" in specs[name] or "qkv_bias" in name, name
  bodies = ("embedder/realm", "encoder/realm", "reader/realm")
  layers = sum(c.num_hidden_layers for c in 3 * [sizes])
  assert len(along["tensor"]) == 3 + 4 * layers
  assert all(name.startswith(bodies) for name in along["tensor"])
  held = sharding.bytes_of(shapes, mesh)
  whole = sum(x.nbytes for x in jax.tree.leaves(shapes))
  assert 1 / 6 < held / whole < 0.5


@eight_devices
def test_params_are_gathered_along_what_is_said():
  mesh = sharding.make_mesh(2, 2, 2)
  params = sharding.shard_state(_state(), mesh).params
  for along, want in (
    (("fsdp",), P("tensor", None)), (("fsdp", "tensor"), P()),
  ):  # fmt: skip
    gather = jax.jit(lambda p, a=along: sharding.gather(p, mesh, a))
    got = gather(params)["embedder"]["word_embeddings"]["embedding"].sharding
    assert got.is_equivalent_to(jax.NamedSharding(mesh, want), 2)
  assert sharding.gather(params, sharding.make_mesh()) is params
  assert sharding.gather(params, None) is params


@eight_devices
def test_a_state_goes_on_on_another_mesh(tmp_path):
  state = jax.tree.map(
    lambda x: np.random.default_rng(x.size).permutation(x.size).reshape(x.shape)
    .astype(x.dtype),
    _state(),
  )  # fmt: skip
  checkpoints = checkpoint.Checkpoints(tmp_path)
  saved = sharding.shard_state(state, sharding.make_mesh(2, 2, 2))
  checkpoints.save(1, {"state": saved})
  empty = jax.tree.map(np.zeros_like, state)
  for sizes in ((1, 2, 1), (2, 1, 3), (1, 1, 1)):
    mesh = sharding.make_mesh(*sizes)
    like = sharding.shard_state(empty, mesh)
    tree, _ = checkpoints.restore(checkpoints.latest(), {"state": like})
    jax.tree.map(np.testing.assert_array_equal, tree["state"], state)
    places = [
      jax.tree.map(lambda x: x.sharding, t) for t in (tree["state"], like)
    ]
    assert places[0] == places[1]
