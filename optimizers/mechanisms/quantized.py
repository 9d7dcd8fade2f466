"""Any optimizer with its moments in eight bits."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.kernels.companding import BLOCK, Coded, decode, dither, encode, noise
from gnomon.optimizers.mechanisms.fused import FusedTransformation
from gnomon.optimizers.mechanisms.inner import complete
from gnomon.optimizers.mechanisms.layered import layered
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import require_params, require_within
from gnomon.parameters.paths import path_string
from gnomon.parameters.stacks import declare, stack_of
from gnomon.parameters.units import resolve_axes

__all__ = ["QuantizeMomentsState", "quantize_moments"]

# Where optax and this package keep averages of gradients, and of their squares.
SIGNED = ("mu", "trace")
UNSIGNED = ("nu",)


class QuantizeMomentsState(NamedTuple):
    """State of :func:`quantize_moments`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    # The state of the inner optimizer, with int8 or uint8 codes for coded moments.
    inner: Any
    # Like inner, with float32 scales: those of a coded moment, of shape () for a moment
    # that is not coded, None where inner has something else.
    scales: Any


def quantize_moments(
    inner: optax.GradientTransformation,
    *,
    signed: Sequence[str] = SIGNED,
    unsigned: Sequence[str] = UNSIGNED,
    min_size: int = 4096,
    block: int = BLOCK,
    stochastic: bool = True,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Keeps the moments of any optimizer in eight bits between its steps.

    Each step decodes them, lets ``inner`` make its update in float32, and codes what it
    leaves. A number takes one byte, and each block of 256 has one scale of four bytes:
    2.03 bytes a parameter for the two moments of Adam instead of 8. See
    :mod:`gnomon.kernels.companding` for the codes and the bound of their error.

    A second moment is coded without a sign and never rounded to zero, so no weight
    jumps because its gradient is small beside those of its neighbors: in one step the
    rounding of both moments can make :math:`m / \sqrt v` at most 1.6 times what it is
    where the gradient is a thousandth of its block's largest, and never more than 7
    times. On average the moments are right.

    Codes lie where the parameters lie. Blocks run over the last axes, so a parameter
    that is cut along others needs no communication; one that is cut along the last axis
    needs none where the cuts are multiples of ``block``.

    Args:
      inner: an optimizer, such as ``optax.adamw(1e-3)``, or another link of a chain.
      signed: fields of the inner states that hold moments, default ``mu`` and
        ``trace``. No other field is touched.
      unsigned: fields that hold moments without negative numbers, default ``nu``.
      min_size: leaves of fewer numbers stay as they are, default 4096: biases and
        scales take little memory, and their moments matter more.
      block: numbers that share one scale, default 256.
      stochastic: round to a neighboring code at random, the default, with numbers drawn
        from the step and the place in the leaf: equal runs stay equal. If False, to the
        nearest, which never lets a slow average change by less than half a code.
      stacked: regex of further leaves that stack layers along axis 0; each layer has
        its own blocks and draws, and counts its own numbers.

    Returns:
      The optimizer. Updates have the dtype of the gradients. Around an optimizer whose
      kernel takes codes, such as :func:`gnomon.optimizers.adamp`, it has the fused
      entry point of :func:`gnomon.optimizers.apply_fused`, which reads ``shardings``
      and ``rounding_key``: one kernel reads a leaf's codes, moves its parameter and
      writes the new codes. Before it XLA finds the sums of a test and a projection,
      which may decode a leaf into memory.

    Raises:
      ValueError: if the state of ``inner`` has no field of these names, or its moments
        are in eight bits already.
      TypeError: if ``inner`` is no transform.

    Example:
      >>> params = {"kernel": jnp.zeros((64, 256))}
      >>> optimizer = quantize_moments(optax.adamw(1e-3))
      >>> state = optimizer.init(params)
      >>> nbytes = sum(x.nbytes for x in jax.tree.leaves(state))
      >>> print(f"{nbytes / params['kernel'].size:.2f} bytes a parameter")
      2.03 bytes a parameter

    References:
      Dettmers et al., `8-bit Optimizers via Block-wise Quantization
      <https://arxiv.org/abs/2110.02861>`_, 2022

    Differences:
      The paper's codes are a table found by search in 2048 numbers with one scale,
      rounded to nearest; here a power law in 256, rounded at random without bias, and
      a second moment that is not zero never becomes zero.
    """
    require_within("[0, inf)", min_size=min_size)
    require_within("[1, inf)", block=block, whole=True)
    block = int(block)  # 2.0 is whole too, and is to be a size
    optimizer = layered(complete(inner, any_sign=True), stacked)
    dtypes = dict.fromkeys(signed, "int8") | dict.fromkeys(unsigned, "uint8")

    def code_dtype(path: tuple[Any, ...]) -> str | None:
        names = (getattr(key, "name", None) for key in path)
        return next((dtypes[name] for name in names if name in dtypes), None)

    def depth(path: tuple[Any, ...], x: jax.Array) -> int:
        """How many leading axes of a moment run over layers."""
        names = [getattr(key, "name", None) for key in path]
        field = next(i for i, name in enumerate(names) if name in dtypes)
        own = path_string(path[field + 1 :])
        return len(stack_of(own, x.ndim, stacked).axes)

    def pack(
        count: jax.Array, moments: optax.OptState, coded: Any
    ) -> QuantizeMomentsState:
        """Moments, of which ``coded`` says which to code, as a state."""

        def leaf(
            path: tuple[Any, ...], x: jax.Array, as_code: bool
        ) -> tuple[jax.Array, jax.Array | None]:
            dtype = code_dtype(path)
            if dtype is None:
                return x, None
            if not as_code:
                return x, jnp.ones([], jnp.float32)
            found: Coded = _code(x, count, dtype, block, stochastic, depth(path, x))
            return found

        pairs = jax.tree_util.tree_map_with_path(leaf, moments, coded)
        inner, scales = (
            jax.tree.map(lambda _, pair, i=i: pair[i], moments, pairs) for i in range(2)
        )
        return QuantizeMomentsState(count, inner, scales)

    def init_fn(params: optax.Params) -> QuantizeMomentsState:
        moments = optimizer.init(params)
        nodes = jax.tree.leaves(moments, is_leaf=_is_quantized)
        if any(map(_is_quantized, nodes)):
            raise ValueError(
                "quantize_moments(quantize_moments(...)): the moments of the inner "
                "optimizer are in eight bits already."
            )

        def is_coded(path: tuple[Any, ...], x: jax.Array) -> bool:
            floating = jnp.issubdtype(x.dtype, jnp.floating)
            if code_dtype(path) is None or not floating:
                return False
            return math.prod(x.shape[depth(path, x) :]) >= min_size

        leaves = jax.tree_util.tree_leaves_with_path(moments)
        if jax.tree.leaves(params) and not any(code_dtype(path) for path, _ in leaves):
            raise ValueError(
                "quantize_moments found no moment in the state of its inner optimizer: "
                f"none of its fields is named one of {sorted(dtypes)}. Name them with "
                "signed= and unsigned=."
            )
        coded = jax.tree_util.tree_map_with_path(is_coded, moments)
        return pack(jnp.zeros([], jnp.int32), moments, coded)

    def update_fn(
        updates: optax.Updates,
        state: QuantizeMomentsState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, QuantizeMomentsState]:
        # A leaf is coded where its dtype is that of a code.
        coded = jax.tree_util.tree_map_with_path(
            lambda path, x: x.dtype == code_dtype(path), state.inner
        )
        moments = jax.tree_util.tree_map_with_path(
            lambda path, x, is_code, scales: (
                _decode(Coded(x, scales), block, depth(path, x)) if is_code else x
            ),
            state.inner,
            coded,
            state.scales,
        )
        out, moments = optimizer.update(updates, moments, params, **extra_args)
        out = jax.tree.map(lambda u, g: u.astype(g.dtype), out, updates)
        return out, pack(optax.safe_increment(state.count), moments, coded)

    unfused = transformation("quantize_moments", init_fn, update_fn)
    apply_coded = getattr(inner, "apply_coded", None)
    usual = set(SIGNED) <= set(signed) and set(UNSIGNED) <= set(unsigned)
    if apply_coded is None or not usual:
        return unfused

    def apply_fn(
        grads: optax.Updates,
        state: QuantizeMomentsState,
        params: optax.Params,
        *,
        shardings: Any = None,
        rounding_key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Params, QuantizeMomentsState]:
        require_params(params, "quantize_moments")
        moments = jax.tree_util.tree_map_with_path(
            lambda path, x, scales: (
                Coded(x, scales) if x.dtype == code_dtype(path) else x
            ),
            state.inner,
            state.scales,
        )
        with declare(stacked):
            axes = resolve_axes(params)  # no rule of the inner optimizer moves these
            params, moments = apply_coded(
                *(grads, moments, params),
                shardings=shardings,
                rounding_key=rounding_key,
                coding=dict(block=block, stochastic=stochastic),
                layers=jax.tree.map(lambda _, of: len(of.stack), params, axes),
                **extra_args,
            )
        codes, scales = (
            jax.tree.map(
                lambda x, old, i=i: x[i] if isinstance(x, Coded) else old,
                *(moments, olds),
                is_leaf=lambda x: isinstance(x, Coded),
            )
            for i, olds in enumerate((moments, state.scales))
        )
        count = optax.safe_increment(state.count)
        return params, QuantizeMomentsState(count, codes, scales)

    return FusedTransformation(unfused, apply_fn)


def _is_quantized(node: Any) -> bool:
    return isinstance(node, QuantizeMomentsState)


# Compiled as one where a step is not: one by one their operations would take longer.
@functools.partial(jax.jit, static_argnums=(1, 2))
def _decode(coded: Coded, block: int, depth: int) -> jax.Array:
    if depth:
        layers: jax.Array = jax.vmap(lambda x: _decode(x, block, depth - 1))(coded)
        return layers
    return decode(coded, block=block)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _code(
    x: jax.Array,
    count: jax.Array,
    dtype: str,
    block: int,
    stochastic: bool,
    depth: int,
) -> Coded:
    if depth:
        how = (dtype, block, stochastic, depth - 1)
        layers: Coded = jax.vmap(lambda layer: _code(layer, count, *how))(x)
        return layers
    share: Any = 0.5
    if stochastic:
        # The two moments of one number are rounded independently.
        share = noise(dither(count, x.shape))[dtype == "uint8"]
    return encode(x, dtype, share, block=block)
