"""Data-dependent initialization: unit pre-activations, layer by layer."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.parameters.checks import require_within
from gnomon.parameters.paths import path_string
from gnomon.parameters.stacks import Stacks
from gnomon.parameters.trees import compute_dtype
from gnomon.parameters.units import Rules, resolve_axes

__all__ = ["data_dependent_init"]


def data_dependent_init(
    pre_activations: Callable[[optax.Params, Any], Mapping[str, jax.Array]],
    params: optax.Params,
    batch: Any,
    *,
    order: Sequence[str] | None = None,
    std: jax.typing.ArrayLike = 1.0,
    eps: jax.typing.ArrayLike = 1e-10,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.Params:
    r"""Scales and shifts every layer so that its units start at mean 0 and variance 1.

    For the layers in order of computation, with :math:`t` the pre-activations (bias
    included) of one unit on the batch, given the layers before it as set already,

    .. math::
      w \leftarrow \frac{\sigma}{s}\, w, \qquad
      b \leftarrow \frac{\sigma}{s}\, (b - \mathrm{mean}(t)), \qquad
      s = \sqrt{\mathrm{var}(t) + \epsilon} .

    Normalizing the weights afterwards, with :func:`weight_norm`, keeps this function:
    it starts at :math:`g = \|w\|`. A unit that is constant on the batch keeps its
    weights. A layer without a bias is scaled and not shifted.

    Args:
      pre_activations: ``pre_activations(params, batch)`` returns, by the path of its
        kernel (names joined by ``/``), what each layer puts out before its
        nonlinearity: examples and positions first, then the kernel's unit axes. The
        bias that was added, if any, is the leaf ``bias`` beside the kernel. It is
        called once a layer. Of a kernel that stacks layers
        (:mod:`gnomon.parameters.stacks`) it returns, in front of all that, the axes of
        the layers, as ``jax.lax.scan`` collects them; or it names each layer as an
        unscanned model would.
      params: the parameters as drawn.
      batch: the examples, a few hundred.
      order: the paths in order of computation. Default the order of the mapping, which
        ``jax.jit`` would sort by name: give it with a jitted function. Stacked kernels
        that follow each other are taken layer by layer.
      std: :math:`\sigma`, default 1.
      eps: :math:`\epsilon`, default 1e-10.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`; of stacked
        layers they name axes as of a list of layers.
      stacked: regex of further leaves that stack layers along axis 0.

    Returns:
      The parameters, with the structure and dtypes of ``params``.

    Raises:
      ValueError: if a path is no leaf with units, ``order`` does not name the layers
        that ``pre_activations`` returns, or a pre-activation does not end in the unit
        axes of its kernel.

    Example:
      >>> params = {"kernel": jnp.array([[2.0, 1.0]]), "bias": jnp.array([5.0, 1.0])}
      >>> def layers(params, x):
      ...     return {"kernel": x @ params["kernel"] + params["bias"][None]}
      >>> batch = jnp.array([[1.0], [3.0]])
      >>> print(layers(data_dependent_init(layers, params, batch), batch)["kernel"])
      [[-1. -1.]
       [ 1.  1.]]

    References:
      Salimans & Kingma, `Weight Normalization <https://arxiv.org/abs/1602.07868>`_,
      2016, section 3

    Differences:
      The paper sets the scales of a network whose weights are normalized already and
      whose biases are zero; the result is the same function. The authors' code has
      :math:`\epsilon` = 1e-10 in dense and 1e-8 in convolutional layers.
    """
    require_within("[0, inf)", std=std, eps=eps)
    stacks = Stacks(params, stacked)
    single = stacks.unstack(params)
    paths, leaves = zip(
        *((path_string(p), x) for p, x in jax.tree_util.tree_leaves_with_path(single)),
        strict=True,
    )
    values = dict(zip(paths, leaves, strict=True))
    treedef: Any = jax.tree.structure(single)  # jax declares no methods for it
    axes = dict(
        zip(paths, treedef.flatten_up_to(resolve_axes(single, rules)), strict=True)
    )

    def whole() -> optax.Params:
        return stacks.restack(treedef.unflatten([values[p] for p in paths]))

    def run() -> Mapping[str, jax.Array]:
        return pre_activations(whole(), batch)

    def of_layers(outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The pre-activations of every layer of a stack by its own path."""
        return {
            path: value[index]
            for name, value in outputs.items()
            for path, index in stacks.layers_of(name)
        }

    returned = run()
    order = tuple(returned) if order is None else tuple(order)
    if sorted(order) != sorted(returned):
        raise ValueError(
            f"order={order} does not name the layers that pre_activations returns, "
            f"{sorted(returned)}."
        )
    layers, order = of_layers(returned), _by_layer(order, stacks)
    for number, path in enumerate(order):
        if path not in values or not axes[path].reduce:
            raise ValueError(
                f"pre_activations returns {path!r}, which is no parameter with units. "
                f"Paths: {', '.join(paths[:20])}{', ...' * (len(paths) > 20)}."
            )
        outputs = (of_layers(run()) if number else layers)[path]
        kernel, reduce = values[path], axes[path].reduce
        units = tuple(n for a, n in enumerate(kernel.shape) if a not in reduce)
        if outputs.shape[outputs.ndim - len(units) :] != units:
            raise ValueError(
                f"the pre-activation of {path!r} has shape {outputs.shape}, which does "
                f"not end in the unit axes {units} of its kernel of {kernel.shape}."
            )
        over = tuple(range(outputs.ndim - len(units)))
        wide = outputs.astype(compute_dtype(outputs.dtype))
        mean, variance = jnp.mean(wide, over), jnp.var(wide, over)
        eps_, std_ = (jnp.asarray(x, wide.dtype) for x in (eps, std))
        factor = jnp.where(variance > 0, std_ * jax.lax.rsqrt(variance + eps_), 1)
        keep = np.array(kernel.shape)
        keep[list(reduce)] = 1
        values[path] = _scaled(kernel, factor.reshape(keep))
        bias = "/".join((*path.split("/")[:-1], "bias"))
        if bias in values:
            shift = mean.reshape(values[bias].shape)
            values[bias] = _scaled(
                values[bias], factor.reshape(shift.shape), shift=shift
            )
    return whole()


def _by_layer(order: Sequence[str], stacks: Stacks) -> list[str]:
    """The paths of single layers, stacks that follow each other layer by layer."""
    in_order: list[str] = []
    for _, names in itertools.groupby(order, stacks.sizes_of):
        columns = [[path for path, _ in stacks.layers_of(name)] for name in names]
        in_order.extend(itertools.chain.from_iterable(zip(*columns, strict=True)))
    return in_order


def _scaled(
    x: jax.Array, factor: jax.Array, shift: jax.Array | None = None
) -> jax.Array:
    moved = x.astype(factor.dtype)
    if shift is not None:
        moved = moved - shift
    return (moved * factor).astype(x.dtype)
