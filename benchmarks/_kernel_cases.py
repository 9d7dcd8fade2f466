"""Each operation on real shapes: what the kernels' check and benchmark share."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels.adam.api import step as adam_step
from gnomon.kernels.adamp.api import step as adamp_step
from gnomon.kernels.layer_norm import layer_norm
from gnomon.kernels.rms_norm import rms_norm
from gnomon.kernels.shapes import ACTIVATIONS, LEAVES, Activations, Leaf
from gnomon.kernels.weight_norm import weight_norm

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.1


class Case(NamedTuple):
    """One call of one operation."""

    op: str
    shape: str
    function: Callable[..., Any]  # of the inputs, and implementation=
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    passes: int  # over the first input: each array read once, written once
    donated: tuple[int, ...] = ()

    @property
    def bytes_needed(self) -> int:
        """What the passes move; vectors are not counted."""
        first = self.inputs[0]
        return self.passes * math.prod(first.shape) * jnp.dtype(first.dtype).itemsize

    def jit(self, implementation: str | None) -> Any:
        """The call by one implementation, compiled when it is first made."""
        function = functools.partial(self.function, implementation=implementation)
        return jax.jit(function, donate_argnums=self.donated)


def backward(function: Callable[..., Any], *inputs: Any, implementation: str | None):
    """Cotangents of all inputs but the last, which is the output's."""
    forward = functools.partial(function, implementation=implementation)
    return jax.vjp(forward, *inputs[:-1])[1](inputs[-1])


def _adam(w, g, m, v, *, implementation):
    return adam_step(
        *(w, g, m, v),
        learning_rate=LEARNING_RATE,
        count=3,
        weight_decay=WEIGHT_DECAY,
        implementation=implementation,
    )


def _adamp(w, g, m, v, *, reduce, implementation):
    return adamp_step(
        *(w, g, m, v),
        learning_rate=LEARNING_RATE,
        count=3,
        weight_decay=WEIGHT_DECAY,
        reduce=reduce,
        implementation=implementation,
    )


def norm_cases(shapes: Sequence[Activations] = ACTIVATIONS) -> Iterator[Case]:
    """Row norms, forward and backward."""
    for name, shape, dtype in shapes:
        x = jax.ShapeDtypeStruct(shape, dtype)
        vector = jax.ShapeDtypeStruct(shape[1:], "float32")
        for op, function, inputs in (
            ("rms_norm", rms_norm, (x, vector)),
            ("layer_norm", layer_norm, (x, vector, vector)),
        ):
            yield Case(op, name, function, inputs, 2)
            back = functools.partial(backward, function)
            yield Case(f"{op}_backward", name, back, (*inputs, x), 3)


def leaf_cases(leaves: Sequence[Leaf] = LEAVES) -> Iterator[Case]:
    """Optimizer steps, and weight norm of the leaves that have units."""
    for leaf in leaves:
        x = leaf.struct
        moment = jax.ShapeDtypeStruct(leaf.shape, "float32")
        state = (x, x, moment, moment)
        # Moments are float32 whatever the parameter: two passes over it in bfloat16.
        passes = 3 + 4 * (4 // jnp.dtype(leaf.dtype).itemsize)
        yield Case("adam", leaf.name, _adam, state, passes, (0, 2, 3))
        axis = leaf.unit_axis
        if axis is None:
            continue
        step = functools.partial(_adamp, reduce=(axis,))
        yield Case("adamp", leaf.name, step, state, passes, (0, 2, 3))
        units = jax.ShapeDtypeStruct((leaf.shape[1 - axis],), "float32")
        norm = functools.partial(weight_norm, axis=axis)
        yield Case("weight_norm", leaf.name, norm, (x, units), 2)
        back = functools.partial(backward, norm)
        yield Case("weight_norm_backward", leaf.name, back, (x, units, x), 3)


def cases() -> Iterator[Case]:
    """Every operation on every shape of the table."""
    yield from norm_cases()
    yield from leaf_cases()
