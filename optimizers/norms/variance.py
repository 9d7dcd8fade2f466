"""Variance control: a narrow start layer by layer, and a cap on growth later."""

import re
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.kernels import Implementation
from gnomon.optimizers.mechanisms.constrain import constrain
from gnomon.optimizers.mechanisms.sets import target_std as target_std_constraint
from gnomon.parameters.checks import require_within
from gnomon.parameters.paths import path_string
from gnomon.parameters.roles import Role, roles, warn_of_guesses
from gnomon.parameters.select import LAYER, Where, layer_number
from gnomon.parameters.stacks import stack_of
from gnomon.parameters.trees import compute_dtype
from gnomon.parameters.units import Axes, Rules, resolve_axes

__all__ = ["layer_index_rescaling", "target_variance_rescaling"]

RECOMMENDED = {
    "target_variance_rescaling": dict(
        inner=dict(
            name="optax.adamw",
            learning_rate=3e-3,
            b1=0.9,
            b2=0.99,
            eps=1e-8,
            weight_decay=0.01,
        ),
        target_std=0.02,
        ratio=1.2,
        every=50.0,
    )
}


def target_variance_rescaling(
    inner: optax.GradientTransformation,
    *,
    target_std: jax.typing.ArrayLike = 0.02,
    ratio: jax.typing.ArrayLike = 1.2,
    every: jax.typing.ArrayLike = 50,
    start: jax.typing.ArrayLike = 0,
    scale_with_depth: bool = False,
    zero_bias: bool = False,
    constrained: Where | None = None,
    layers: str = LAYER,
    rules: Rules | None = None,
    stacked: str | None = None,
    implementation: Implementation | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""TVR: any optimizer, with layers that grow too wide rescaled to a target.

    Every ``every`` updates, after the update, each kernel :math:`W` of a layer with
    mean :math:`\mu` and standard deviation :math:`s` (Bessel's) becomes

    .. math::
      W \leftarrow \begin{cases}
        s_t\, (W - \mu) / s + \mu & \text{if } s > r\, s_t \\ W & \text{otherwise.}
      \end{cases}

    It only shrinks: the deviation is a saw-tooth between :math:`s_t` and
    :math:`r s_t`, up to the growth within one period. The state of ``inner`` is not
    touched. Embeddings, output layers and normalization layers are left alone.

    Args:
      inner: a complete optimizer, such as ``optax.adamw(1e-3)``.
      target_std: the deviation :math:`s_t`, default 0.02; the authors' best run used
        0.01, with an initialization at 0.006 by :func:`layer_index_rescaling`.
      ratio: :math:`r`, how far above it is tolerated, default 1.2.
      every: period in updates, default 50.
      start: updates before the first period begins, default 0.
      scale_with_depth: use :math:`s_t / \sqrt{l}` in layer :math:`l = 1, 2, \dots`.
      zero_bias: set the bias beside a rescaled kernel to zero, see Differences.
      constrained: which leaves: a regex found in the path, or a mask (a tree of bools,
        a prefix, or a function of the parameters); default every hidden leaf
        (:mod:`gnomon.parameters.roles`) that lies in a layer; an output layer that is
        a guess, such as linen's last ``Dense_2``, is said in a warning.
      layers: regex whose first group is a leaf's zero-based layer index; by default the
        first name of the path that is a number or ends in one, ``blocks/0``.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; each layer has its
        own statistics and number.
      implementation: what moves constrained weights in
        :func:`gnomon.optimizers.apply_fused`, ``"xla"``, ``"tpu"`` or ``"gpu"``;
        default the kernel where it is known to be faster, see :mod:`gnomon.kernels`.
        With ``zero_bias`` it is XLA.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, no leaf lies in a layer, ``inner`` climbs, or a transform inside controls
        the norm of a selected leaf too.
      TypeError: if ``inner`` is no transform.

    Example:
      >>> w = {"blocks": {"0": {"kernel": jnp.array([[1.0, 2.0], [3.0, 6.0]])}}}
      >>> g = {"blocks": {"0": {"kernel": jnp.array([[1.0, 0.0], [0.0, -1.0]])}}}
      >>> optimizer = target_variance_rescaling(optax.sgd(0.1), target_std=2.0, every=2)
      >>> state = optimizer.init(w)
      >>> for _ in range(4):
      ...     updates, state = optimizer.update(g, state, w)
      ...     w = optax.apply_updates(w, updates)
      ...     kernel = w["blocks"]["0"]["kernel"]
      ...     print(f"mean {kernel.mean():.2f}, std {kernel.std(ddof=1):.3f}")
      mean 3.00, std 2.238
      mean 3.00, std 2.315
      mean 3.00, std 2.393
      mean 3.00, std 2.000

    References:
      Owen et al., `Variance Control via Weight Rescaling in LLM Pre-training
      <https://arxiv.org/abs/2503.17500>`_, 2025

    Differences:
      The authors' code also sets the bias beside a rescaled kernel to zero
      (``zero_bias=True``), and its first period begins after the first update
      (``start=1``: updates 51, 101, ...). There the counter restarts when a run is
      resumed; here it is in the state. A kernel of more than two axes is one matrix.
    """
    require_within("(0, inf)", target_std=target_std)
    constraint = target_std_constraint(
        target_std,
        ratio=ratio,
        scale_with_depth=scale_with_depth,
        zero_bias=zero_bias,
        constrained=constrained,
        layers=layers,
        rules=rules,
        stacked=stacked,
        implementation=implementation,
    )
    return constrain(
        inner,
        constraint._replace(name="target_variance_rescaling"),
        start=start,
        every=every,
    )


def layer_index_rescaling(
    key: jax.Array,
    params: optax.Params,
    *,
    std: jax.typing.ArrayLike = 0.02,
    scale_factor: jax.typing.ArrayLike = 1.0,
    layers: str = LAYER,
    stacked: str | None = None,
    rules: Rules | None = None,
) -> optax.Params:
    r"""LIR: draws kernels anew, narrower the deeper their layer.

    .. math::
      W^{(l)} \sim N\Big(0, \frac{\sigma^2}{l\, \kappa}\Big), \qquad l = 1, 2, \dots

    Leaves with units outside the layers (embeddings, output layers) are drawn with
    deviation :math:`\sigma`, biases become zero, and all others (scales of
    normalization layers) stay as they are.

    A leaf's numbers depend on the key, its path and its layer alone: not on the order
    of leaves, and not on whether layers are stacked, as long as the path without the
    layer's index is the same.

    Args:
      key: a random key.
      params: a tree of parameters, such as a model's own initialization. Only the
        shapes and dtypes of redrawn leaves are used.
      std: :math:`\sigma`, default 0.02; the authors recommend 0.006.
      scale_factor: :math:`\kappa`, default 1.
      layers: regex whose first group is a leaf's zero-based layer index; by default the
        first name of the path that is a number or ends in one, ``blocks/0``.
      stacked: regex of the leaves that stack layers along axis 0.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.

    Returns:
      The parameters, with the structure and dtypes of ``params``.

    Raises:
      ValueError: if ``std`` or ``scale_factor`` is not one number or out of range, or
        ``stacked`` or a rule matches no leaf.

    Example:
      >>> kernel = jax.ShapeDtypeStruct((64, 64), jnp.float32)
      >>> params = {"blocks": {str(i): {"kernel": kernel} for i in range(4)}}
      >>> drawn = layer_index_rescaling(jax.random.key(0), params, std=0.02)
      >>> for i in range(4):
      ...     print(f"{drawn['blocks'][str(i)]['kernel'].std():.4f}", end=" ")
      0.0199 0.0143 0.0118 0.0101

    References:
      Owen et al., `Variance Control via Weight Rescaling in LLM Pre-training
      <https://arxiv.org/abs/2503.17500>`_, 2025

    Differences:
      Tied embeddings are one leaf and are drawn once; the authors' code draws them
      twice. It also zeroes the padding row of an embedding, which cannot be seen in a
      tree. The residual scaling of GPT-2 must not be applied on top.
    """
    require_within("[0, inf)", std=std)
    require_within("(0, inf)", scale_factor=scale_factor)
    kinds = roles(params, rules, stacked)
    warn_of_guesses(kinds, "layer_index_rescaling", "give layers=... for the others")

    def draw(
        path: tuple[Any, ...], leaf: jax.Array, axes: Axes, role: Role
    ) -> jax.Array:
        name = path_string(path)
        stack = stack_of(name, leaf.ndim, stacked)
        if not axes.reduce:
            is_bias = name.split("/")[-1].endswith("bias")
            return jnp.zeros(leaf.shape, leaf.dtype) if is_bias else leaf
        number = None
        if role.role not in ("embedding", "head"):
            number = layer_number(name, leaf.shape, layers, stacked)
        dtype = compute_dtype(leaf.dtype)
        sigma = jnp.asarray(std, dtype)
        without_index = _without_index(stack.path(), layers)
        own_key = jax.random.fold_in(key, zlib.crc32(without_index))
        if number is None:
            normal = jax.random.normal(own_key, leaf.shape, dtype)
        else:
            sigma = sigma / jnp.sqrt(
                jnp.asarray(number, dtype) * jnp.asarray(scale_factor, dtype)
            )
            keys = jax.vmap(jax.random.fold_in, (None, 0))(own_key, number.ravel())
            shape = leaf.shape[1:] if axes.stack else leaf.shape
            normal = jax.vmap(lambda k: jax.random.normal(k, shape, dtype))(keys)
            normal = normal.reshape(leaf.shape)
        return (sigma * normal).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(
        draw, params, resolve_axes(params, rules, stacked), kinds
    )


def _without_index(path: str, layers: str) -> bytes:
    found = re.search(layers, path)
    if found is None:
        return path.encode()
    before, after = path[: found.start(1)], path[found.end(1) :]
    return re.sub("/+", "/", f"{before}{after}".strip("/")).encode()
