"""Numbers out of range are refused by name; traced ones never make a NaN."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import optimizers
from gnomon_contract.makers import SETS
from gnomon_contract.public import GIVEN

VALUES = (math.nan, math.inf, -math.inf, -1.0, 0.0, 1.0, 1.5, 1e30)
# Moments that are coded without a sign cannot become negative.
UNSIGNED = {"adamp_8bit", "adamw_8bit"}
# Integers that set shapes or the length of a loop cannot be traced.
STATIC = {"steps", "min_size", "block", "max_size", "stochastic"}


def is_numeric(parameter):
    default = parameter.default
    if isinstance(default, bool) or parameter.annotation is bool:
        return False
    if isinstance(default, int | float):
        return True
    text = str(parameter.annotation)
    return "ArrayLike" in text or ("DTypeLike" not in text and "Schedule" in text)


def numeric(make):
    parameters = inspect.signature(make).parameters
    return [name for name, p in parameters.items() if is_numeric(p)]


def tree():
    """A kernel that has a gradient, and one that has never had one."""
    ramp = jnp.arange(1.0, 9.0).reshape(4, 2)
    return {"blocks_0": {"kernel": jnp.cos(ramp)}, "blocks_1": {"kernel": ramp / 8}}


def loss(params):
    return (params["blocks_0"]["kernel"] ** 2).sum()


def steps(optimizer):
    """What three steps put out and leave behind."""
    params = tree()
    grads = jax.grad(loss)(params)
    state, out = optimizer.init(params), []
    extra = dict(value=loss(params), grad=grads, obj_fn=loss)
    for _ in range(3):
        updates, state = optimizer.update(grads, state, params, **extra)
        out.append(updates)
    return out, state


def has_nan(tree):
    return any(
        np.isnan(leaf).any()
        for leaf in map(np.asarray, jax.tree.leaves(tree))
        if leaf.dtype.kind == "f"
    )


def refused(build, name, value):
    try:
        return build(**{name: value})
    except ValueError as error:
        message = str(error)
    assert message.startswith(f"{name}="), (name, value, message)
    return None


def test_every_number_of_every_optimizer(public):
    """In lanes of one program, each with one number changed."""
    names = [name for name in numeric(public.make) if name not in STATIC]
    lanes = []
    for name in names:
        for value in VALUES:
            built = refused(public.build, name, value)
            assert built is None or not math.isnan(value), (name, value)
            # The traced form of one that is refused is defined too, but for overflow.
            meant = abs(value) < (1.5 if public.name in UNSIGNED else 10)
            if built is not None or meant:
                lanes.append((name, value))
    usual = {name: default(public, name) for name in names}
    groups = [[n for n in names if usual[n] is not None]]
    groups += [[n] for n in names if usual[n] is None]
    for group in groups:
        chosen = [lane for lane in lanes if lane[0] in group]
        if not chosen:
            continue
        values = {
            name: jnp.array(
                [value if name == changed else usual[name] for changed, value in chosen]
            ).astype("int32" if name == "seed" else "float32")
            for name in group
        }
        results = jax.jit(jax.vmap(lambda v: steps(public.build(**v))))(values)
        for index, lane in enumerate(chosen):
            one = jax.tree.map(lambda x, index=index: x[index], results)
            assert not has_nan(one), lane


# Of which a part means nothing.
WHOLE = {"free_steps", "start", "every", "steps", "block", "max_size", "min_size"}


def test_what_is_no_number_is_refused(public):
    names = set(numeric(public.make)) | ({"learning_rate"} & set(public.parameters))
    for name in names - STATIC:
        values = ["1e-3", True, math.nan] + [1.5] * (name in WHOLE)
        for value in values:
            with pytest.raises(ValueError, match=f"^{name}="):
                public.build(**{name: value})


@pytest.mark.parametrize("block", [8.0, np.float32(8), np.int64(8)])
def test_whole_numbers_of_any_type(block):
    optimizer = optimizers.quantize_moments(optax.adam(0.1), block=block, min_size=0)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(tree(), optimizer.init(tree()), tree())
    assert not has_nan(updates)


def default(public, name):
    value = public.parameters[name].default
    return public.given(name) if value is inspect.Parameter.empty else value


@pytest.mark.parametrize("name", sorted(STATIC - {"stochastic"}))
def test_static_numbers_are_refused_by_name(name):
    makers = {
        "steps": optimizers.scale_by_newton,
        "min_size": lambda **kw: optimizers.quantize_moments(optax.adam(0.1), **kw),
        "block": lambda **kw: optimizers.quantize_moments(optax.adam(0.1), **kw),
        "max_size": lambda **kw: optimizers.bucket_leaves(optax.adam(0.1), **kw),
    }
    for value in (math.nan, -1):
        assert refused(makers[name], name, value) is None


@pytest.mark.parametrize("name", [name for name in SETS if SETS[name]])
def test_every_number_of_every_constraint(name):
    make = getattr(optimizers, name)
    given = GIVEN.get(name, {})
    for number in numeric(make):
        for value in (math.nan, -1.0, -math.inf):
            assert refused(lambda **kw: make(**given | kw), number, value) is None

        @jax.jit
        @jax.vmap
        def run(value, number=number):
            return steps(
                optimizers.constrain(optax.sgd(0.1), make(**given | {number: value}))
            )

        assert not has_nan(run(jnp.array([-1.0, 0.0, 1.0, 1.5, 1e30])))


INITIALIZERS = {
    "layer_index_rescaling": lambda **kw: optimizers.layer_index_rescaling(
        jax.random.key(0), tree(), **kw
    ),
    "data_dependent_init": lambda **kw: optimizers.data_dependent_init(
        lambda p, x: {"blocks_0/kernel": x @ p["blocks_0"]["kernel"]},
        tree(),
        jnp.ones((3, 4)),
        **kw,
    ),
    "lawn_schedule": lambda **kw: optimizers.lawn_schedule(
        **{"peak": 0.1, "warmup_steps": 1, "total_steps": 2} | kw
    ),
}


@pytest.mark.parametrize("function", INITIALIZERS)
def test_every_number_of_every_initializer(function):
    for name in numeric(getattr(optimizers, function)):
        for value in (math.nan, -1.0, math.inf):
            assert refused(INITIALIZERS[function], name, value) is None
