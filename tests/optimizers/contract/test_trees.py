"""Any tree that optax takes is taken, or refused by name where it is initialized."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import FrozenDict, freeze
from jax.tree_util import register_dataclass

from gnomon import dynamics, optimizers
from gnomon_contract import collect


@pytest.fixture(autouse=True)
def promotion():
    """What optax has inside needs it."""
    with jax.numpy_dtype_promotion("standard"):
        yield


class Module:
    """A tree of parameters that can be called, as an Equinox module is."""

    def __init__(self, **parts):
        self.__dict__.update(parts)

    def __call__(self, x):
        raise AssertionError("a tree of parameters was called")


def module_of(*names):
    def flatten(module):
        keys = [
            (jax.tree_util.GetAttrKey(name), getattr(module, name)) for name in names
        ]
        return keys, None

    kind = type("_".join(names), (Module,), {})
    jax.tree_util.register_pytree_with_keys(
        kind, flatten, lambda _, parts: kind(**dict(zip(names, parts, strict=True)))
    )
    return kind


class Dataclass:
    def __init__(self, **parts):
        self.__dict__.update(parts)


def dataclass_of(*names):
    kind = type("_".join(names), (Dataclass,), {})
    return register_dataclass(kind, data_fields=list(names), meta_fields=[])


def by(kind_of):
    kinds = {}

    def convert(tree):
        if not isinstance(tree, dict):
            return tree
        names = tuple(sorted(tree))
        kind = kinds.setdefault(names, None) or kind_of(*names)
        kinds[names] = kind
        return kind(**{name: convert(tree[name]) for name in names})

    return convert


def boxed(box):
    def convert(tree):
        return jax.tree.map(lambda w: w if isinstance(w, bool) else box(w), tree)

    return convert


def plain(tree):
    return tree


# How a tree is given to init, and how it is to update.
partitioned = boxed(lambda w: nn.Partitioned(w, names=(None,) * w.ndim))
KINDS = {
    "nnx": (boxed(nnx.Param), plain),
    "nnx_state": (lambda tree: nnx.State(boxed(nnx.Param)(tree)), nnx.State),
    "frozen": (freeze, freeze),
    "dataclass": (by(dataclass_of),) * 2,
    "module": (by(module_of),) * 2,
    "partitioned": (partitioned, partitioned),
    "numpy": (lambda tree: jax.tree.map(np.asarray, tree),) * 2,
}


def tree():
    generator = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(generator.normal(size=shape), "float32")

    return {
        "embed": {"embedding": draw(4, 2)},
        "head": {"kernel": draw(4, 2)},
        "layers_0": {"bias": draw(2), "kernel": draw(4, 2)},
    }


def loss(params):
    return sum((leaf**2).sum() for leaf in jax.tree.leaves(params))


@functools.cache
def start():
    """The tree, the loss there and its gradient."""
    params = tree()
    return params, *jax.value_and_grad(loss)(params)


def on_paths(public, convert):
    """Whatever the function has that looks at paths or takes trees."""
    decays = {
        "embed": False,
        "head": {"kernel": True},
        "layers_0": {"bias": False, "kernel": True},
    }
    choices = dict(
        rules=[("^head/kernel$", -1)],
        constrained="^(head|layers_0)/kernel$",
        normalized="^layers_0/kernel$",
        weight_decay=0.1,
        weight_decay_mask=convert(decays),
        base=convert(tree()),
    )
    given = {k: v for k, v in choices.items() if k in public.parameters}
    if public.name == "bucket_leaves":
        given["joins"] = lambda leaf: leaf.ndim < 2
    if public.name == "constrain":
        given["constraint"] = optimizers.fixed_norm(constrained="^head/kernel$")
    return public.build(**given)


def run(optimizer, at_init, at_update):
    params, value, grads = start()
    state = optimizer.init(at_init(params))
    # As nnx does it, states lose their boxes where parameters do.
    if at_init is not at_update:
        state = nnx.as_pure(state)
    extra = dict(value=value, grad=at_update(grads), obj_fn=loss)
    for _ in range(2):
        updates, state = optimizer.update(
            at_update(grads), state, at_update(params), **extra
        )
    assert jax.tree.structure(updates) == jax.tree.structure(at_update(params))
    return jax.tree.leaves(updates)


def test_kinds_of_trees(public):
    wanted = run(on_paths(public, plain), plain, plain)
    for kind, (at_init, at_update) in KINDS.items():
        optimizer = on_paths(public, at_update if kind != "numpy" else plain)
        got = run(optimizer, at_init, at_update)
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_probes_read_the_same_paths(kind):
    at_init, at_update = KINDS[kind]
    run(dynamics.measure(optax.adam(0.1)), at_init, at_update)


LEAVES = {
    "float": (1.5, True),
    "numpy scalar": (np.float32(1.5), True),
    "double": (np.ones((2, 2)), True),
    "empty": (jnp.zeros((0, 3)), True),
    "none": (None, True),
    "masked": (optax.MaskedNode(), True),
    "integer": (jnp.arange(3), "int32"),
    "python integer": (3, "int"),
    "bool": (np.array([True]), "bool"),
    "key": (jax.random.key(0), "key"),
    "text": ("relu", "is a str"),
    "function": (jax.nn.relu, "no array"),
    "complex": (jnp.array([1 + 2j, 3.0]), "split_real_and_imaginary"),
}
# Right for complex numbers: what they do to a number is a product with a real one.
COMPLEX_ADAM = collect.complex_adam()


def test_kinds_of_leaves(public):
    for kind, (leaf, verdict) in LEAVES.items():
        params = {"layers_0": {"kernel": jnp.ones((2, 2)), "odd": leaf}}
        optimizer = public.build()
        if verdict is not True and not (
            kind == "complex" and public.name in COMPLEX_ADAM
        ):
            with pytest.raises(ValueError, match=f"'layers_0/odd' .*{verdict}"):
                optimizer.init(params)
            continue
        state = optimizer.init(params)
        extra = dict(value=1.0, grad=params, obj_fn=loss)
        for _ in range(2):
            updates, new = optimizer.update(params, state, params, **extra)
            same = jax.tree.map(lambda a, b: a.dtype == b.dtype, new, state)
            assert all(jax.tree.leaves(same)), kind
            state = new
        moved = optax.apply_updates(params, updates)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(moved)), kind


@pytest.mark.parametrize("name", sorted(COMPLEX_ADAM))
def test_complex_numbers_are_those_of_the_inner_optimizer(name):
    adam = optax.adam(0.1)
    outer = COMPLEX_ADAM[name]()
    w = {"kernel": jnp.array([1 + 2j, -3j, 0.0])}
    got, want = (o.update(w, o.init(w), w)[0]["kernel"] for o in (outer, adam))
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("leaf", ["none", "masked"])
def test_a_part_without_leaves(public, leaf):
    """As a partition hands it down, from init on, fused too."""
    params = {"layers_0": {"kernel": LEAVES[leaf][0]}}
    optimizer = public.build()
    state = optimizer.init(params)
    extra = dict(value=1.0, grad=params, obj_fn=lambda params: jnp.float32(1))
    for _ in range(3):
        updates, state = optimizer.update(params, state, params, **extra)
        moved, state = optimizers.apply_fused(optimizer, params, state, params, **extra)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert jax.tree.structure(moved) == jax.tree.structure(params)


MASKS = {
    "prefix": {"layers_0": True, "layers_1": {"kernel": False}},
    "tree": {
        "layers_0": {"kernel": np.True_},
        "layers_1": {"kernel": jnp.array(False)},
    },
    "function": lambda p: jax.tree.map(lambda w: w.ndim == 2, p),
    "function of a prefix": lambda p: {"layers_0": True, "layers_1": False},
    "partial": jax.tree_util.Partial(lambda p: {"layers_0": True, "layers_1": False}),
}


def test_forms_of_masks(public):
    """All that select the first leaf alone."""
    names = {"weight_decay_mask", "constrained", "normalized"} & set(public.parameters)
    if not names:
        return
    params = {f"layers_{i}": {"kernel": jnp.ones((2,) * (2 - i))} for i in range(2)}

    def update(form):
        decays = {"weight_decay", "independent_decay"} & set(public.parameters)
        given = dict.fromkeys(decays, 0.1) | dict.fromkeys(names, form)
        optimizer = public.build(**given)
        state = optimizer.init(params)
        return optimizer.update(params, state, params, value=1.0, grad=params)[0]

    wanted = update(MASKS["prefix"])
    for form in MASKS:
        jax.tree.map(np.testing.assert_array_equal, update(MASKS[form]), wanted)


FREED = {
    "lawn": lambda view, rate: optimizers.lawn(
        optax.sgd(rate), free_steps=0, view=view
    ),
    "constrain": lambda view, rate: optimizers.constrain(
        optax.sgd(rate), optimizers.fixed_norm(view=view), tangent="both"
    ),
    "gradients": lambda view, rate: optimizers.constrain(
        optax.sgd(rate), optimizers.fixed_norm(view=view), tangent="gradients"
    ),
    "hyperball": lambda view, rate: optimizers.hyperball(
        optax.identity(), rate, view=view
    ),
}


@pytest.mark.parametrize("entry", ["update", "apply_fused"])
@pytest.mark.parametrize("view", ["layer", "unit"])
@pytest.mark.parametrize("name", FREED)
def test_what_is_zero_at_the_switch_is_free(name, view, entry):
    target = jnp.array([[3.0, 1.0], [4.0, 2.0]])
    params = {"zero": {"kernel": jnp.zeros((2, 2))}}
    if view == "unit":  # beside a unit that is not zero
        params["mixed"] = {"kernel": jnp.array([[0.0, 1.0], [0.0, 2.0]])}
    optimizer = FREED[name](view, 0.1)

    def step(carry, _):
        params, state = carry
        grads = jax.tree.map(lambda w: w - target, params)
        if entry == "update":
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None
        return optimizers.apply_fused(optimizer, grads, state, params), None

    @jax.jit
    def train(params):
        first = (params, optimizer.init(params))
        return jax.lax.scan(step, first, length=150)[0][0]

    params = train(params)
    np.testing.assert_allclose(params["zero"]["kernel"], target, atol=1e-5)
    if view == "unit":
        np.testing.assert_allclose(params["mixed"]["kernel"][:, 0], [3, 4], atol=1e-5)
        norm = np.linalg.norm(params["mixed"]["kernel"][:, 1])
        np.testing.assert_allclose(norm, np.sqrt(5), rtol=1e-5)


def test_frozen_masks():
    mask = FrozenDict({"layers_0": True, "layers_1": False})
    params = freeze({f"layers_{i}": {"kernel": jnp.ones((2, 2))} for i in range(2)})
    optimizer = optimizers.adamp(0.1, weight_decay=0.1, weight_decay_mask=mask)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert updates["layers_0"]["kernel"][0, 0] != updates["layers_1"]["kernel"][0, 0]


def test_kernels_with_outputs_first(public):
    """``OUTPUTS_FIRST`` on a module's weights is the default on Flax's kernels."""
    if "rules" not in public.parameters or public.name == "adamw_8bit":
        return
    names = {"kernel": "weight", "embedding": "weight"}
    flax = {k: v for k, v in tree().items() if k != "embed"}
    flax["layers_1"] = {"kernel": jnp.cos(jnp.arange(24.0)).reshape(3, 2, 2, 2)}
    to_module = by(module_of)

    def turned(params):
        return to_module(
            {
                layer: {
                    names.get(k, k): jnp.moveaxis(w, -1, 0) if w.ndim > 1 else w
                    for k, w in leaves.items()
                }
                for layer, leaves in params.items()
            }
        )

    def quartic(params):
        return sum(jnp.sum(w**4) / 4 for w in jax.tree.leaves(params))

    def update(params, **given):
        if public.name == "constrain":
            given = {"constraint": optimizers.fixed_norm(view="unit", **given)}
        elif "view" in public.parameters:
            given["view"] = "unit"
        optimizer = public.build(**given)
        state = optimizer.init(params)
        # Neither along the weights nor orthogonal to them, in every unit.
        grads = jax.tree.map(lambda w: w**3, params)
        extra = dict(value=1.0, grad=grads, obj_fn=quartic)
        return optimizer.update(grads, state, params, **extra)[0]

    wanted = turned(update(flax))
    got = update(turned(flax), rules=optimizers.OUTPUTS_FIRST)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, wanted
    )
