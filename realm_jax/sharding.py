"""Where arrays live: one mesh, ordered rules by name, host rows to the mesh.

The models never see a mesh. This module decides for them: a batch is split
over `data` and `fsdp`, the rows of index and block store over every device,
and a parameter goes where the first rule says whose pattern is in its path. At
its use it is whole along `fsdp` (`gather`); along `tensor` a device computes
with its part. All axes are `Auto`: jit decides on the collectives.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from realm_jax.config import InputError

AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))
ROWS = P(AXES)

Rules = Sequence[tuple[str, P]]

# Matrices are split, vectors are on every device. Of two products in a row the
# first is split by its columns and the second by its rows, so that along
# `tensor` they need one sum. The moments of the optimizer end in the path of
# their parameter, so they follow it.
RULES: Rules = (
  (r"word_embeddings/embedding$", P("tensor", "fsdp")),
  (r"/qkv_kernel$", P("fsdp", None, "tensor")),
  (r"/intermediate/kernel$", P("fsdp", "tensor")),
  (r"/(out|output)/kernel$", P("tensor", "fsdp")),
  (r"/(kernel|embedding)$", P("fsdp")),
  (r"", P()),
)


def mesh_sizes(
  count: int, data: int = -1, fsdp: int = 1, tensor: int = 1
) -> dict[str, int]:
  """The sizes of a mesh's axes, for `count` devices; see make_mesh.

  Raises:
    InputError: no sizes of a mesh, or one of more devices.
  """
  sizes = dict(zip(AXES, (data, fsdp, tensor), strict=True))
  given = math.prod(size for size in sizes.values() if size != -1)
  rest = [name for name, size in sizes.items() if size == -1]
  if len(rest) == 1 and given > 0 and count % given == 0:
    sizes[rest[0]] = count // given
  wanted = math.prod(sizes.values())
  if min(sizes.values()) < 1 or wanted > count:
    raise InputError(
      f"config mesh: data={data}, fsdp={fsdp}, tensor={tensor}, and there are"
      f" {count} devices: give sizes of that product; -1 is all that are left"
    )
  return sizes


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
  """Makes the mesh over all devices of all processes.

  One process can do with fewer devices; of several, each needs its part.

  Args:
    data: devices on the axis that splits the batch; -1 for all that are left.
    fsdp: devices on the axis that splits the batch and the parameters.
    tensor: devices on the axis that splits the parameters only.

  Raises:
    InputError: the product is more than the number of devices, or less and
      there are several processes; or two processes would share rows of a
      batch.
  """
  count, processes = jax.device_count(), jax.process_count()
  sizes = mesh_sizes(count, data, fsdp, tensor)
  wanted = math.prod(sizes.values())
  if processes > 1 and wanted < count:
    raise InputError(
      f"config mesh: data={data}, fsdp={fsdp}, tensor={tensor} wants {wanted}"
      f" devices, and {processes} processes have {count}: take them all"
    )
  if sizes["data"] * sizes["fsdp"] % processes:
    raise InputError(
      f"config mesh.tensor={tensor}: the {processes} processes would share rows"
      f" of a batch: take a divisor of the {count // processes} devices of each"
    )
  devices = np.asarray(jax.devices()[:wanted])
  return Mesh(
    devices.reshape(tuple(sizes.values())),
    AXES,
    axis_types=(AxisType.Auto,) * 3,
  )


def planned_mesh(sizes: Mapping[str, int]) -> AbstractMesh:
  """A mesh that need not be there; sizes as of mesh_sizes."""
  return AbstractMesh(
    tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * 3
  )


def bytes_of(tree: Any, mesh: Mesh | AbstractMesh) -> int:
  """What a device holds of a state whose leaves lie where RULES say."""
  places = infer_shardings(tree, RULES, mesh)

  def held(leaf, place):
    ways = math.prod(mesh.shape[axis] for axis in place.spec if axis)
    return leaf.size // ways * leaf.dtype.itemsize

  return sum(jax.tree.leaves(jax.tree.map(held, tree, places)))


def batch_ways(mesh: Mesh | AbstractMesh) -> int:
  """Over how many devices the rows of a batch are split."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def splits(rows: int, mesh: Mesh | AbstractMesh) -> bool:
  """Whether a batch of so many rows can be split over the devices."""
  return rows % batch_ways(mesh) == 0


def infer_shardings(
  shapes: Any, rules: Rules, mesh: Mesh | AbstractMesh
) -> Any:
  """Gives every leaf the spec of the first rule whose pattern is in its path.

  Args:
    shapes: pytree of arrays or ShapeDtypeStructs.
    rules: (regex, PartitionSpec) pairs; paths are "params/embedder/...".
    mesh: the mesh of the specs; its sizes are enough.

  Returns:
    A pytree of NamedShardings. A dimension that its axis does not divide is
    left whole, and so is every scalar.

  Raises:
    ValueError: no rule matches a path.
  """

  def sharding(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    for pattern, spec in rules:
      if re.search(pattern, name):
        return NamedSharding(mesh, _fit(spec, leaf.shape, mesh))
    raise ValueError(f"no sharding rule matches {name} {leaf.shape}")

  return jax.tree_util.tree_map_with_path(sharding, shapes)


def gather(
  params: Any, mesh: Mesh | None, along: Sequence[str] = ("fsdp",)
) -> Any:
  """The params as they are computed with: whole along some axes of the mesh.

  For use inside jit; what becomes of the gradients is the compiler's.
  """
  if mesh is None or all(mesh.shape[axis] == 1 for axis in along):
    return params
  rules = [
    (name, P(*(None if axis in along else axis for axis in spec)))
    for name, spec in RULES
  ]
  return jax.lax.with_sharding_constraint(
    params, infer_shardings(params, rules, mesh)
  )


def shard_batch(batch: Any, mesh: Mesh) -> Any:
  """Puts the rows that this process read on the mesh, split over the batch.

  Args:
    batch: pytree of numpy arrays [B / processes, ...].
    mesh: the mesh.

  Returns:
    The same pytree of global arrays [B, ...].

  Raises:
    InputError: the devices do not divide the batch.
  """
  ways = batch_ways(mesh)
  rows = jax.tree.leaves(batch)[0].shape[0] * jax.process_count()
  if rows % ways:
    raise InputError(
      f"a batch of {rows} rows does not split over {ways} devices: make the"
      f" batch size a multiple of {ways}, or give --config.mesh.data a divisor"
    )
  sharding = NamedSharding(mesh, BATCH)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, x), batch
  )


def shard_whole_batch(batch: Any, mesh: Mesh) -> Any:
  """shard_batch, of rows [B, ...] that every process has read."""
  rows = jax.tree.leaves(batch)[0].shape[0] // jax.process_count()
  mine = slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
  return shard_batch(jax.tree.map(lambda x: x[mine], batch), mesh)


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Puts a copy of every leaf on every device; the same in every process."""
  return _place(tree, jax.tree.map(lambda _: NamedSharding(mesh, P()), tree))


def shard_state(state: Any, mesh: Mesh) -> Any:
  """Puts params and moments where RULES say; the same in every process."""
  return _place(state, infer_shardings(state, RULES, mesh))


def _place(tree: Any, shardings: Any) -> Any:
  if jax.process_count() == 1:
    return jax.device_put(tree, shardings)
  # device_put would first send every leaf around to compare it
  return jax.tree.map(
    lambda x, sharding: _from_host(np.asarray(x), sharding), tree, shardings
  )


def fetch(tree: Any) -> Any:
  """Arrays on the mesh to NumPy, whole in every process."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return jax.tree.map(
    lambda x: multihost_utils.process_allgather(x, tiled=True), tree
  )


def shard_rows(array: Any, mesh: Mesh) -> jax.Array:
  """Splits the rows of [N, ...] over all devices, N a multiple of their number.

  A memory-mapped array is read only where this process has a device for it;
  `retrieval.refresh.padded_rows` gives the N to pad to.
  """
  sharding = NamedSharding(mesh, ROWS)
  if isinstance(array, jax.Array):
    return jax.device_put(array, sharding)
  return _from_host(array, sharding)


def make_rows(
  read: Callable[[int, int], Any], num_rows: int, mesh: Mesh
) -> Any:
  """Rows split over all devices; each process reads those of its devices.

  Args:
    read: (first, last) -> pytree of NumPy arrays [last - first, ...].
    num_rows: N, a multiple of the number of devices.
    mesh: the mesh.

  Returns:
    The pytree of global arrays [N, ...].
  """
  sharding = NamedSharding(mesh, ROWS)
  places = sharding.addressable_devices_indices_map((num_rows,))
  parts = [
    jax.device_put(read(*rows.indices(num_rows)[:2]), device)
    for device, (rows,) in places.items()
  ]

  def whole(*parts):
    return jax.make_array_from_single_device_arrays(
      (num_rows, *parts[0].shape[1:]), sharding, list(parts)
    )

  return jax.tree.map(whole, *parts)


def rows_of_process(num_rows: int, mesh: Mesh) -> tuple[int, int]:
  """First and one past the last of the N rows that this process's devices have.

  They have all between them where the mesh has devices in their order.
  """
  places = NamedSharding(mesh, ROWS).addressable_devices_indices_map(
    (num_rows,)
  )
  spans = [rows.indices(num_rows)[:2] for (rows,) in places.values()]
  return min(first for first, _ in spans), max(last for _, last in spans)


def _from_host(array: Any, sharding: NamedSharding) -> jax.Array:
  return jax.make_array_from_callback(
    array.shape, sharding, lambda index: np.asarray(array[index])
  )


def _fit(spec: P, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
  """The spec cut to the array's rank, less the axes that do not divide it or
  have one device."""
  axes = [
    axis if axis and mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0
    else None
    for size, axis in zip(shape, spec, strict=False)
  ]  # fmt: skip
  return P(*axes) if any(axes) else P()
