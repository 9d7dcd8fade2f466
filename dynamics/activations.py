"""What flows forward: dead units, extremes, and the size of the logits."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gnomon.dynamics.layers import Layers
from gnomon.parameters.trees import compute_dtype


class Activations(NamedTuple):
    """Forward statistics of one layer's activations.

    Attributes:
      dead: the share of units that are not above zero for any example of the batch.
        Only after a rectifier does that mean a unit that learns nothing.
      maximum: the largest absolute value.
      rms: root of the mean square.
      channel_mean: mean over units of the squared mean over examples, the part of the
        signal that every example shares.
      channel_variance: mean over units of the variance over examples; NaN for a single
        example.
    """

    dead: jax.Array
    maximum: jax.Array
    rms: jax.Array
    channel_mean: jax.Array
    channel_variance: jax.Array


class Logits(NamedTuple):
    """The size of a model's outputs.

    Attributes:
      norm: mean over examples of the Euclidean norm.
      maximum: the largest absolute value.
    """

    norm: jax.Array
    maximum: jax.Array


def activations(values: jax.Array) -> Activations:
    """Measures the activations of a layer.

    Args:
      values: [..., units]; all axes but the last count examples.

    Returns:
      Scalars in float32 or wider; NaN for an empty array.

    Example:
      >>> seen = activations(jnp.array([[0.0, 1.0], [0.0, 3.0], [-1.0, 2.0]]))
      >>> print(seen.dead, seen.maximum)
      0.5 3.0

    References:
      Brock et al., Characterizing signal propagation to close the performance gap in
      unnormalized ResNets, 2021 (the two channel statistics).
    """
    dtype = compute_dtype(values.dtype)
    units = values.shape[-1] if values.ndim else 1
    x = values.astype(dtype).reshape(-1, units)
    if not x.size:
        return Activations(*(jnp.full((), jnp.nan, dtype) for _ in Activations._fields))
    mean = jnp.mean(x, axis=0, keepdims=True)
    examples = x.shape[0]
    variance = jnp.sum(jnp.square(x - mean), axis=0) / max(examples - 1, 1)
    return Activations(
        dead=jnp.mean(jnp.all(x <= 0, axis=0).astype(dtype)),
        maximum=jnp.max(jnp.abs(x)),
        rms=jnp.sqrt(jnp.mean(jnp.square(x))),
        channel_mean=jnp.mean(jnp.square(mean)),
        channel_variance=jnp.mean(variance)
        if examples > 1
        else jnp.full((), jnp.nan, dtype),
    )


class LayerActivations(NamedTuple):
    """What the modules of each layer put out; every field is [layers].

    Attributes:
      dead: the share of units that are not above zero for any example of the batch:
        dead where a rectifier follows, and of no meaning elsewhere.
      maximum: the largest absolute value.
    """

    dead: jax.Array
    maximum: jax.Array


def layer_activations(
    outputs: Mapping[str, jax.Array], layers: Layers
) -> LayerActivations:
    """Measures the outputs of modules, grouped as their parameters are.

    Args:
      outputs: [..., units] by the path of the module, as the ``activations`` of a
        `gnomon.models.functional` gives them. The outputs of a module belong to the
        layer of its own parameters, and nowhere if it has none.
      layers: the grouping of the parameters.

    Returns:
      The record; NaN for a layer none of whose modules has outputs here.

    Example:
      >>> layers = Layers(("up", "head"), (0, 0, 1), ("up/bias", "up/kernel", "head/w"))
      >>> outputs = {"up": jnp.array([[-1.0, 2.0], [-3.0, 0.0]])}
      >>> seen = layer_activations(outputs, layers)
      >>> print(seen.dead, seen.maximum)
      [0.5 nan] [ 3. nan]
    """
    owner = {
        path.rpartition("/")[0]: group
        for path, group in zip(layers.paths, layers.groups, strict=True)
        if group >= 0
    }
    records: list[list[tuple[int, Activations]]] = [[] for _ in layers.names]
    for path, values in outputs.items():
        if path in owner:
            units = values.shape[-1] if values.ndim else 1
            records[owner[path]].append((units, activations(values)))

    def pooled(found: list[tuple[int, Activations]]) -> tuple[jax.Array, jax.Array]:
        if not found:
            return jnp.full((), jnp.nan), jnp.full((), jnp.nan)
        dead = jnp.stack([units * seen.dead for units, seen in found])
        maximum = jnp.stack([seen.maximum for _, seen in found])
        return jnp.sum(dead) / sum(units for units, _ in found), jnp.max(maximum)

    columns = zip(*map(pooled, records), strict=True)
    return LayerActivations(*(jnp.stack(column) for column in columns))


def logits(values: jax.Array) -> Logits:
    """Measures a model's logits.

    Args:
      values: [..., classes].

    Returns:
      Scalars in float32 or wider; NaN for an empty array.

    Example:
      >>> print(*logits(jnp.array([[3.0, 4.0], [0.0, -5.0]])))
      5.0 5.0
    """
    x = values.astype(compute_dtype(values.dtype))
    if not x.size:
        return Logits(*(jnp.full((), jnp.nan, x.dtype) for _ in Logits._fields))
    return Logits(
        norm=jnp.mean(jnp.sqrt(jnp.sum(jnp.square(x), axis=-1))),
        maximum=jnp.max(jnp.abs(x)),
    )
