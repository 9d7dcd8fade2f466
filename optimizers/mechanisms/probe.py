"""Which way a transform goes: whether its updates climb or descend, found by trying."""

import contextlib
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from gnomon.optimizers.mechanisms.diagnostics import observed

# One matrix in which no row, column or number is like another, named as a kernel of a
# first layer; and a direction that is neither along it nor orthogonal to it.
_WEIGHT = np.array([[0.5, -0.75], [1.25, 0.25]], np.float32)
_GRADIENT = np.array([[0.5, 1.0], [-0.25, 0.75]], np.float32)
# A warm-up may start at zero.
_STEPS = 2
# For how long a transform that climbs at first is looked at. That of SAM climbs to the
# point where it takes the gradient, in a step or a few, and descends from there.
_ASCENT = 6
_VERDICTS: weakref.WeakKeyDictionary[Callable[..., Any], int] = (
    weakref.WeakKeyDictionary()
)


def slope(transform: optax.GradientTransformation) -> int:
    r"""The sign of a transform, from a step or two on a matrix of four numbers.

    With :math:`u(g)` the update that a gradient gives, it is that of
    :math:`\langle u(g) - u(-g), g \rangle`: what does not depend on the gradient, such
    as weight decay or a way back to a set, is in both and cancels.

    Args:
      transform: the transform, alone; a wrapper asks before it wraps.

    Returns:
      1 if updates go along the gradient, -1 if they go against it, and 0 if that
      cannot be told: a number inside is traced, the updates are zero (a long warm-up,
      gradients accumulated), they climb at first and then descend, it needs what is
      not known here, or it leaves out the leaf of the probe.

    Example:
      >>> slope(optax.scale_by_adam()), slope(optax.adam(0.1)), slope(optax.adam(0.0))
      (1, -1, 0)
    """
    try:
        known = _VERDICTS.get(transform.update)
    except TypeError:  # not every callable can be a key
        return _try(transform)
    if known is None:
        known = _try(transform)
        # What could not be told may be told outside of the trace that is under way.
        if known:
            _VERDICTS[transform.update] = known
    return known


def _try(transform: optax.GradientTransformation) -> int:
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(jax.ensure_compile_time_eval())
        stack.enter_context(observed())  # these steps are nobody else's
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.numpy_rank_promotion("allow"))
        # Whatever the transform objects to, it is not for the probe to say.
        try:
            return _sign(transform)
        except Exception:
            return 0


def _sign(transform: optax.GradientTransformation) -> int:
    extended = optax.with_extra_args_support(transform)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        params = {"layers_0": {"kernel": jax.numpy.asarray(_WEIGHT)}}
        first = extended.init(params)

        def move(
            state: optax.OptState, sign: float
        ) -> tuple[np.ndarray, optax.OptState]:
            grads = {"layers_0": {"kernel": jax.numpy.asarray(sign * _GRADIENT)}}
            extra_args = _extra_args(params, grads)
            update, state = extended.update(grads, state, params, **extra_args)
            return np.asarray(update["layers_0"]["kernel"], np.float64), state

        states = {1.0: first, -1.0: first}
        signs: list[int] = []
        for number in range(_ASCENT):
            if number >= _STEPS and not signs:
                break
            moves = {sign: move(state, sign) for sign, state in states.items()}
            states = {sign: state for sign, (_, state) in moves.items()}
            along, against = moves[1.0][0], moves[-1.0][0]
            turned = along - against
            sizes = np.linalg.norm(turned), np.linalg.norm(_GRADIENT)
            cosine = np.sum(turned * _GRADIENT) / max(np.prod(sizes), 1e-300)
            rounding = 1e-5 * (np.abs(along).max() + np.abs(against).max())
            if sizes[0] <= rounding or not abs(cosine) > 1e-3:
                continue
            if cosine < 0:
                return 0 if signs else -1
            signs.append(1)
        if not signs:
            return 0
        # A leaf that is masked out climbs as well: its gradient passes through.
        return int(not _masks(first))


def _extra_args(params: Any, grads: Any) -> dict[str, Any]:
    """A loss of unit curvature with these gradients at these parameters."""

    def loss(x: optax.Params) -> jax.typing.ArrayLike:
        away = jax.tree.map(lambda x, w: x - w, x, params)
        parts = jax.tree.map(
            lambda d, g: (d * g).sum() + 0.5 * (d * d).sum(), away, grads
        )
        return 10.0 + sum(jax.tree.leaves(parts))

    return dict(
        value=jax.numpy.asarray(10.0, "float32"),
        grad=grads,
        value_fn=loss,
        obj_fn=loss,
        grad_fn=jax.grad(loss),
    )


def _masks(state: Any) -> bool:
    nodes = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, optax.MaskedState))
    return any(isinstance(node, optax.MaskedState) for node in nodes)
