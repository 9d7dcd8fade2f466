"""Each operation on real shapes: one list for tests, benchmarks and compile checks."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels.adam import step as adam_step
from gnomon.kernels.adam_8bit import step as adam_8bit_step
from gnomon.kernels.adamp import step as adamp_step
from gnomon.kernels.companding import Coded, encode
from gnomon.kernels.fadam import step as fadam_step
from gnomon.kernels.fixed_norm import step as fixed_norm_step
from gnomon.kernels.layer_norm import layer_norm
from gnomon.kernels.rms_norm import rms_norm
from gnomon.kernels.shapes import ACTIVATIONS, LEAVES, Activations, Leaf
from gnomon.kernels.variance import step as variance_step
from gnomon.kernels.weight_norm import weight_norm

# Large, so that a wrong direction shows in bfloat16 parameters too.
LEARNING_RATE, WEIGHT_DECAY = 0.1, 0.1
# Parameters in float32 stay where they are.
STILL = 1e-12


def _as_drawn(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return arrays


class Case(NamedTuple):
    """One call of one operation."""

    op: str
    shape: str
    function: Callable[..., Any]  # of the inputs, and implementation=
    normals: tuple[jax.ShapeDtypeStruct, ...]  # standard normal, independent
    make: Callable[..., tuple[jax.Array, ...]] = _as_drawn  # inputs out of those
    donated: tuple[int, ...] = ()
    # What this gradient makes AdamP project; "" for operations that do not project.
    projects: str = ""
    # For a step on coded moments, (w, g, codes, scales, codes, scales): the same step
    # on (w, g, m, v).
    plain: Callable[..., Any] | None = None

    @property
    def inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of what the function takes."""
        return jax.eval_shape(self.make, *self.normals)

    @property
    def bytes_needed(self) -> int:
        """Every input read once and every result written once, vectors too."""
        function = functools.partial(self.function, implementation="xla")
        results = jax.tree.leaves(jax.eval_shape(function, *self.inputs))
        return sum(map(nbytes, (*self.inputs, *results)))

    @property
    def still(self) -> "Case":
        """To call again and again: what a gradient projects hangs on the parameters."""
        if not self.projects:
            return self
        function = functools.partial(self.function, learning_rate=STILL)
        return self._replace(function=function)

    def jit(self, implementation: str | None) -> Any:
        """The call by one implementation, compiled when it is first made."""
        function = functools.partial(self.function, implementation=implementation)
        return jax.jit(function, donate_argnums=self.donated)


def nbytes(x: jax.ShapeDtypeStruct) -> int:
    """Bytes of an array."""
    return math.prod(x.shape) * jnp.dtype(x.dtype).itemsize


def backward(function: Callable[..., Any], *inputs: Any, implementation: str | None):
    """Cotangents of all inputs but the last, which is the output's."""
    forward = functools.partial(function, implementation=implementation)
    return jax.vjp(forward, *inputs[:-1])[1](inputs[-1])


def _adam(w, g, m, v, *, implementation, **how):
    return adam_step(
        *(w, g, m, v),
        learning_rate=LEARNING_RATE,
        count=100,
        weight_decay=WEIGHT_DECAY,
        implementation=implementation,
        **how,
    )


def _adamp(w, g, m, v, *, reduce, implementation, learning_rate=LEARNING_RATE, **how):
    return adamp_step(
        *(w, g, m, v),
        learning_rate=learning_rate,
        count=100,
        weight_decay=WEIGHT_DECAY,
        reduce=reduce,
        implementation=implementation,
        **how,
    )


def _adam_8bit(w, g, m, v, *, implementation, **how):
    return adam_8bit_step(
        *(w, g, m, v),
        learning_rate=LEARNING_RATE,
        count=100,
        weight_decay=WEIGHT_DECAY,
        implementation=implementation,
        **how,
    )


def _on_codes(step, w, g, m, m_scales, v, v_scales, **how):
    """A step on coded moments, given their arrays."""
    return step(w, g, Coded(m, m_scales), Coded(v, v_scales), **how)


def _fadam(w, g, m, root, *, implementation, **how):
    return fadam_step(
        *(w, g, m, root),
        learning_rate=LEARNING_RATE,
        count=100,
        weight_decay=WEIGHT_DECAY,
        implementation=implementation,
        **how,
    )


def _fixed_norm(w, u, norm, *, reduce, implementation, **how):
    moved = fixed_norm_step(
        *(w, u, norm), angle=0.1, reduce=reduce, implementation=implementation, **how
    )
    return (moved,)


def _variance(w, u, *, implementation, **how):
    return (variance_step(w, u, target=0.02, implementation=implementation, **how),)


def _last_positive(*arrays):
    """A norm, or the root of a second moment."""
    return (*arrays[:-1], jnp.abs(arrays[-1]))


def _moments(w, g, m, v):
    """A step's inputs: the second moment is a square."""
    return w, g, m, jnp.square(v)


def _turned(w, g, m, v, *, turn):
    """The gradient turned about the weights; momentum along them, to be projected."""
    return _moments(w, turn(w, g), m + w.astype(m.dtype), v)


def _coded(*normals, make=_moments):
    w, g, m, v = make(*normals)
    return w, g, *encode(m, "int8"), *encode(v, "uint8")


def along(w: jax.Array, g: jax.Array) -> jax.Array:
    """A gradient at 45 degrees to every unit of the weights."""
    return g + w


def across(w: jax.Array, g: jax.Array, axes: tuple[int, ...] | None) -> jax.Array:
    """A gradient without its part along the weights, over ``axes`` or all of them."""
    w, wide = w.astype(jnp.float32), g.astype(jnp.float32)
    product, square = (
        jnp.sum(x * w, axis=axes, keepdims=True, dtype=jnp.float32) for x in (wide, w)
    )
    return (wide - product / square * w).astype(g.dtype)


def turns(axis: int) -> dict[str, Callable[[jax.Array, jax.Array], jax.Array]]:
    """By what AdamP then projects: how to turn a random gradient about the weights."""
    return {
        "nothing": along,
        "units": functools.partial(across, axes=(axis,)),
        "layer": functools.partial(across, axes=None),
    }


def norm_cases(shapes: Sequence[Activations] = ACTIVATIONS) -> Iterator[Case]:
    """Row norms, forward and backward."""
    for name, shape, dtype in shapes:
        x = jax.ShapeDtypeStruct(shape, dtype)
        vector = jax.ShapeDtypeStruct(shape[1:], "float32")
        for op, function, inputs in (
            ("rms_norm", rms_norm, (x, vector)),
            ("layer_norm", layer_norm, (x, vector, vector)),
        ):
            yield Case(op, name, function, inputs)
            back = functools.partial(backward, function)
            yield Case(f"{op}_backward", name, back, (*inputs, x))


def leaf_cases(leaves: Sequence[Leaf] = LEAVES) -> Iterator[Case]:
    """Optimizer steps, and weight norm of the leaves that have units."""
    for leaf in leaves:
        x = leaf.struct
        # Moments are float32 whatever the parameter.
        moment = jax.ShapeDtypeStruct(leaf.shape, "float32")
        state = (x, x, moment, moment)
        yield Case("adam", leaf.name, _adam, state, _moments, (0, 2, 3))
        yield Case("fadam", leaf.name, _fadam, state, _last_positive, (0, 2, 3))
        yield Case("variance", leaf.name, _variance, (x, x), donated=(0,))
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
            inputs = (x, x, norm)
            yield Case(op, leaf.name, rescaling, inputs, _last_positive, (0,))
        if axis is None:
            continue
        units = jax.ShapeDtypeStruct((leaf.shape[1 - axis],), "float32")
        weights = functools.partial(weight_norm, axis=axis)
        yield Case("weight_norm", leaf.name, weights, (x, units))
        back = functools.partial(backward, weights)
        yield Case("weight_norm_backward", leaf.name, back, (x, units, x))


def projecting_cases(
    leaves: Sequence[Leaf] = LEAVES, projects: Sequence[str] = ("nothing",)
) -> Iterator[Case]:
    """AdamP's steps, which read more where they project; with coded moments too."""
    for leaf in leaves:
        axis = leaf.unit_axis
        if axis is None:
            continue
        moment = jax.ShapeDtypeStruct(leaf.shape, "float32")
        state = (leaf.struct, leaf.struct, moment, moment)
        step = functools.partial(_adamp, reduce=(axis,))
        coded = functools.partial(_on_codes, step)
        for name in projects:
            make = functools.partial(_turned, turn=turns(axis)[name])
            yield Case("adamp", leaf.name, step, state, make, (0, 2, 3), name)
            yield Case(
                *("adamp_8bit", leaf.name, coded, state),
                functools.partial(_coded, make=make),
                donated=(0, 2, 3, 4, 5),
                projects=name,
                plain=step,
            )


def coded_cases(leaves: Sequence[Leaf] = LEAVES) -> Iterator[Case]:
    """Adam's step on moments in eight bits."""
    step = functools.partial(_on_codes, _adam_8bit)
    for leaf in leaves:
        moment = jax.ShapeDtypeStruct(leaf.shape, "float32")
        state = (leaf.struct, leaf.struct, moment, moment)
        yield Case(
            *("adam_8bit", leaf.name, step, state, _coded, (0, 2, 3, 4, 5)),
            plain=_adam,
        )


def cases() -> Iterator[Case]:
    """Every operation on every shape of the table."""
    yield from norm_cases()
    yield from leaf_cases()
    yield from projecting_cases()
    yield from coded_cases()
