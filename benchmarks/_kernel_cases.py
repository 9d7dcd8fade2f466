"""Each operation on real shapes: what the kernels' check and benchmark share."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels.adam.api import step as adam_step
from gnomon.kernels.adam_8bit.api import step as adam_8bit_step
from gnomon.kernels.adamp.api import step as adamp_step
from gnomon.kernels.companding import Coded, encode
from gnomon.kernels.fadam.api import step as fadam_step
from gnomon.kernels.fixed_norm.api import step as fixed_norm_step
from gnomon.kernels.layer_norm import layer_norm
from gnomon.kernels.rms_norm import rms_norm
from gnomon.kernels.shapes import ACTIVATIONS, LEAVES, Activations, Leaf
from gnomon.kernels.variance.api import step as variance_step
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


def _adam_8bit(w, g, m, m_scales, v, v_scales, *, implementation):
    return adam_8bit_step(
        *(w, g, Coded(m, m_scales), Coded(v, v_scales)),
        learning_rate=LEARNING_RATE,
        count=3,
        weight_decay=WEIGHT_DECAY,
        implementation=implementation,
    )


def _fadam(w, g, m, root, *, implementation):
    return fadam_step(
        *(w, g, m, root),
        learning_rate=LEARNING_RATE,
        count=3,
        weight_decay=WEIGHT_DECAY,
        implementation=implementation,
    )


def _fixed_norm(w, u, norm, *, reduce, implementation):
    # Drawn like the rest, and a norm of no more than zero would leave the leaf free.
    norm = jnp.abs(norm)
    moved = fixed_norm_step(
        *(w, u, norm), angle=0.1, reduce=reduce, implementation=implementation
    )
    return (moved,)


def _variance(w, u, *, implementation):
    return (variance_step(w, u, target=0.02, implementation=implementation),)


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
        yield Case("fadam", leaf.name, _fadam, state, passes, (0, 2, 3))
        yield Case("variance", leaf.name, _variance, (x, x), 3, (0,))
        axis = leaf.unit_axis
        for op, reduce in (
            ("fixed_norm", tuple(range(len(leaf.shape)))),
            ("fixed_norm_units", () if axis is None else (axis,)),
        ):
            if not reduce:
                continue
            per_unit = [1 if a in reduce else n for a, n in enumerate(leaf.shape)]
            norm = jax.ShapeDtypeStruct(tuple(per_unit), "float32")
            rescaling = functools.partial(_fixed_norm, reduce=reduce)
            yield Case(op, leaf.name, rescaling, (x, x, norm), 3, (0,))
        if axis is None:
            continue
        step = functools.partial(_adamp, reduce=(axis,))
        yield Case("adamp", leaf.name, step, state, passes, (0, 2, 3))
        units = jax.ShapeDtypeStruct((leaf.shape[1 - axis],), "float32")
        norm = functools.partial(weight_norm, axis=axis)
        yield Case("weight_norm", leaf.name, norm, (x, units), 2)
        back = functools.partial(backward, norm)
        yield Case("weight_norm_backward", leaf.name, back, (x, units, x), 3)


def coded_cases(leaves: Sequence[Leaf] = LEAVES) -> Iterator[Case]:
    """Adam's step on moments in eight bits, four bytes a parameter; checked alone."""

    def state(zeros):
        return encode(zeros, "int8"), encode(zeros, "uint8")

    for leaf in leaves:
        x = leaf.struct
        moment = jax.ShapeDtypeStruct(leaf.shape, "float32")
        inputs = (x, x, *jax.tree.leaves(jax.eval_shape(state, moment)))
        passes = 3 + 4 // jnp.dtype(leaf.dtype).itemsize
        donated = (0, 2, 3, 4, 5)
        yield Case("adam_8bit", leaf.name, _adam_8bit, inputs, passes, donated)


def cases() -> Iterator[Case]:
    """Every operation on every shape of the table."""
    yield from norm_cases()
    yield from leaf_cases()
    yield from coded_cases()
