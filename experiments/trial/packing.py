"""A tree of arrays as bytes with sums, and back onto devices."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.experiments.trial.signature import leaf_type, path_name, signature

_OF_NUMPY = ("file", "allow_pickle")  # keywords of `numpy.savez`


def array_crc(array: np.ndarray) -> int:
    """The CRC-32 of an array's numbers."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def pack(
    tree: Any, owns: Callable[[Any], bool] | None = None, first: bool = True
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Parts a tree into what describes it and its arrays, copied to the host.

    Args:
      tree: arrays, keys and plain numbers.
      owns: of arrays that several processes hold, which shards are this one's to store;
        a record then has ``shards``, each with the place in the array where it starts.
        None for arrays that are stored whole.
      first: whether this process stores what is no array of devices.

    Returns:
      The ``signature`` of the tree with a record of each of its ``leaves``, and the
      arrays by the names in those records.

    Raises:
      TypeError: a leaf that cannot be stored. The message names it.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for _, leaf in leaves:
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    records: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for index, (path, leaf) in enumerate(leaves):
        record: dict[str, Any] = {"path": path_name(path)}
        records.append(record)
        # By type, not isinstance: a NumPy float64 is a float too.
        if type(leaf) in (bool, int, float):
            record["value"] = leaf
            continue
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            raise TypeError(f"{record['path']} is a {leaf_type(leaf)}, not an array")
        if isinstance(leaf, jax.Array):
            if owns is None and not leaf.is_fully_addressable:
                raise TypeError(f"{record['path']} lies partly in other processes")
            if _is_key(leaf):
                record["impl"] = str(jax.random.key_impl(leaf))
                leaf = jax.random.key_data(leaf)
        if owns is None:
            record |= _stored(leaf, record["path"], index, arrays)
            continue
        record |= {"shape": leaf.shape, "dtype": str(leaf.dtype), "shards": []}
        for place, part in _parts(leaf, owns, first):
            name = f"{record['path']}@{','.join(map(str, place))}"
            stored = _stored(part, name, index, arrays)
            record["shards"].append({"start": place, **stored})
    return {"signature": signature(tree), "leaves": records}, arrays


def _stored(
    leaf: Any, name: str, index: int, arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Copies an array, or a shard of one, among the arrays; returns its record."""
    # A copy always: on a CPU NumPy would get a view of the buffer, and as long as
    # that lives, JAX would not reuse the buffer that the caller donates.
    array = np.array(leaf, copy=True, order="C")
    record: dict[str, Any] = {
        "shape": array.shape,
        "dtype": str(array.dtype),
        "crc32": array_crc(array),
    }
    if array.size:  # an empty array is its shape
        # The key "a/b" and the key "b" under "a" have one and the same path; NumPy
        # has names and a suffix of its own.
        if name in arrays or name in _OF_NUMPY or name.endswith(".npy"):
            name += f"#{index}"
        record["name"] = name
        arrays[name] = array
    return record


def _parts(
    leaf: Any, owns: Callable[[Any], bool], first: bool
) -> list[tuple[list[int], Any]]:
    """The shards of an array that are this process's to store, and where they start."""
    if not isinstance(leaf, jax.Array):
        return [([0] * leaf.ndim, leaf)] if first else []

    def start(shard: Any) -> list[int]:
        pairs = zip(shard.index, leaf.shape, strict=True)
        return [place.indices(size)[0] for place, size in pairs]

    return [(start(s), s.data) for s in leaf.addressable_shards if owns(s)]


def within(path: str, fields: Sequence[str]) -> bool:
    """Whether a path lies in one of a tree's top fields.

    >>> [within(path, ["probes"]) for path in ("probes/start/w", "probes", "params/w")]
    [True, True, False]
    """
    return path.partition("/")[0] in fields


def unpack(
    records: Sequence[Mapping[str, Any]],
    arrays: Sequence[np.ndarray | None],
    target: Any,
    holes: Sequence[str] = (),
) -> Any:
    """Puts arrays into the places of a target.

    Args:
      records: of each leaf, as `pack` made them.
      arrays: of each leaf; None where the record holds the value.
      target: a tree of the structure to make.
      holes: top fields of the tree whose leaves stay as they are in the target; no
        record stands for them.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(target)
    stored = iter(zip(records, arrays, strict=True))
    restored = []
    for path, leaf in leaves:
        if within(path_name(path), holes):
            restored.append(leaf)
            continue
        record, array = next(stored)
        value = record["value"] if array is None else _place(record, array, leaf)
        restored.append(value)
    return jax.tree.unflatten(structure, restored)


def _place(record: Mapping[str, Any], array: np.ndarray, leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return array
    if isinstance(leaf, np.generic):
        return array[()]
    # An array that was never bound to a device must not come back bound to one:
    # it could not meet arrays of another device in the same program.
    committed = getattr(leaf, "committed", True)
    sharding = getattr(leaf, "sharding", None) if committed else None
    if sharding is not None and not sharding.is_fully_addressable:
        placed = _spread(record, array, sharding)
    else:
        value: Any = array
        if "impl" in record:
            value = jax.random.wrap_key_data(jnp.asarray(array), impl=record["impl"])
        placed = jax.device_put(value, sharding)
    if placed.dtype != leaf.dtype:
        raise TypeError(
            f"{record['path']} is {leaf.dtype} but came back as {placed.dtype}; "
            "enable jax_enable_x64 as in the run that saved it"
        )
    return placed


def _spread(record: Mapping[str, Any], array: np.ndarray, sharding: Any) -> jax.Array:
    """An array on the devices of several processes, each of which has it whole."""
    if "impl" not in record:
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
    everywhere = NamedSharding(sharding.mesh, P())
    data = jax.make_array_from_callback(array.shape, everywhere, array.__getitem__)
    return jax.random.wrap_key_data(data, impl=record["impl"])
