"""Layers that are stacked in one leaf are treated as a list of layers, by everything.

Every public name of the optimizers is in one of the tables below: a new one without a
row fails. Each row is run on a list of layers, on the same layers under a name that
declares a stack, and on them under another name that ``stacked=`` declares.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import pallas as pl

from gnomon import optimizers as o
from gnomon.parameters.paths import path_string
from gnomon.parameters.stacks import Stacks, unstack

LAYERS = 2
FAST = {"xla_backend_optimization_level": 0}
STACKED = "^blocks/"


def draw():
    """A network of layers in a list; their sizes and gradients differ by far."""
    generator = np.random.default_rng(0)

    def normal(*shape):
        return generator.normal(size=shape).astype(np.float32)

    def block(i):
        return {
            "query": {"kernel": (1 + 2 * i) * normal(4, 2, 3)},
            "up": {"kernel": normal(6, 4) / (1 + 2 * i), "bias": normal(4)},
        }

    return {
        "embed": {"embedding": normal(6, 4)},
        "blocks": {str(i): block(i) for i in range(LAYERS)},
    }


LIST = draw()
STACK = jax.tree.map(lambda *x: np.stack(x), *LIST["blocks"].values())
NAMED = {**LIST, "blocks": {"stacked": STACK}}
TOLD = {**LIST, "blocks": STACK}
HALF = jax.tree.map(
    lambda w: jax.ShapeDtypeStruct([n // 2 if n == 4 else n for n in w.shape], w.dtype),
    {"list": LIST, "named": NAMED, "told": TOLD},
)


def base(params):
    """A model of half the width, whatever the layout of this one."""
    blocks = params["blocks"]
    if "0" in blocks:
        return HALF["list"]
    return HALF["named" if "stacked" in blocks else "told"]


def by_rank(params):
    """A mask that many a training script has: matrices decay."""
    return jax.tree.map(lambda w: w.ndim > 1, params)


# One function a method, of what declares the stack: nothing or stacked=STACKED.
METHODS = {
    "adamp": lambda **s: o.adamp(0.1, weight_decay=0.1, weight_decay_mask=by_rank, **s),
    "scale_by_adamp": lambda **s: descending(o.scale_by_adamp(**s)),
    "sgdp": lambda **s: o.sgdp(
        0.1, momentum=0.9, weight_decay=0.1, weight_decay_mask=by_rank, **s
    ),
    "scale_by_sgdp": lambda **s: descending(o.scale_by_sgdp(momentum=0.9, **s)),
    "fadam": lambda **s: o.fadam(0.1, weight_decay=0.1, clip=0.3, **s),
    "scale_by_fadam": lambda **s: descending(o.scale_by_fadam(clip=0.3, **s)),
    "adamp_8bit": lambda **s: o.adamp_8bit(0.1, min_size=7, block=8, **s),
    "adamw_8bit": lambda **s: o.adamw_8bit(0.1, min_size=7, block=8, **s),
    "add_norm_loss": lambda **s: descending(o.add_norm_loss(0.5, view="layer", **s)),
    "scale_by_width": lambda **s: descending(
        o.scale_by_width(base, o.mup_rule("adam"), **s)
    ),
}
# Methods that look at no leaf by itself: at single numbers, or at all of the tree.
PLAIN = {
    "alig": lambda: o.alig(0.1, momentum=0.9),
    "descend": lambda: o.descend(0.1),
    "alr_hb": lambda: o.alr_hb(momentum=0.5),
    "alr_mag": lambda: o.alr_mag(momentum=0.5),
    "alr_shb": lambda: o.alr_shb(0.1, momentum=0.5),
    "alr_smag": lambda: o.alr_smag(0.1, momentum=0.5),
    "momo": lambda: o.momo(1.0),
    "momo_adam": lambda: o.momo_adam(0.1, weight_decay=0.1, weight_decay_mask=by_rank),
    "momsps": lambda: o.momsps(),
    "sps": lambda: o.sps(1.0),
    "scale_by_adagrad_sqr": lambda: o.sania(o.scale_by_adagrad_sqr(1.0)),
    "scale_by_adam_sqr": lambda: o.sania(o.scale_by_adam_sqr(0.9, 1.0)),
    "scale_by_hutchinson": lambda: o.sania(o.scale_by_hutchinson(0.9, 1.0)),
    "scale_by_newton": lambda: o.sania(o.scale_by_newton(1.0, steps=3)),
}
WRAPPERS = {
    "constrain": lambda i, **s: o.constrain(i, o.max_norm(1.0, **s)),
    "lawn": lambda i, **s: o.lawn(i, free_steps=1, **s),
    "hyperball": lambda i, **s: o.hyperball(ascending(i), 0.1, **s),
    "norm_loss": lambda i, **s: o.norm_loss(ascending(i), 0.1, rate=0.1, **s),
    "project_radial": lambda i, **s: o.project_radial(
        ascending(i), weight_decay=0.01, **s
    ),
    "target_variance_rescaling": lambda i, **s: o.target_variance_rescaling(
        i, target_std=0.3, every=2, zero_bias=True, scale_with_depth=True, **s
    ),
    "weight_norm": lambda i, **s: o.weight_norm(i, **s),
    "quantize_moments": lambda i, **s: o.quantize_moments(i, min_size=7, block=8, **s),
    "mup": lambda i, **s: o.mup(i, base, **s),
    "standard_parameterization": lambda i, **s: o.standard_parameterization(
        i, base, **s
    ),
    "bucket_leaves": lambda i: o.bucket_leaves(i, max_size=12),
    "reparameterize": lambda i: o.reparameterize(i, cubes, roots),
    "sania": lambda i: o.sania(ascending(i)),
    "per_layer": lambda i, **s: o.per_layer(i, **s),
}
# Those that have no leaf of their own to look at.
PLAIN_ONES = ("bucket_leaves", "reparameterize", "sania")
SETS = {
    "fixed_norm": lambda **s: o.fixed_norm(**s),
    "max_norm": lambda **s: o.max_norm(1.0, view="layer", **s),
    "unit_sphere": lambda **s: o.unit_sphere(**s),
    "target_std": lambda **s: o.target_std(0.3, **s),
}
INNER = {
    "sgd": lambda: optax.sgd(0.1, momentum=0.9),
    "adamw": lambda: optax.adamw(0.1, weight_decay=0.1, mask=by_rank),
    "adamp": lambda: o.adamp(0.1),
    "lamb": lambda: optax.lamb(0.1),
}
LAYERWISE = optax.chain(optax.scale_by_trust_ratio(), optax.sgd(0.1, momentum=0.9))
# What stands between a wrapper and an optimizer that looks at leaves.
BETWEEN = {
    "clip": lambda i, **s: optax.chain(optax.clip_by_global_norm(1.0), i),
    **{name: WRAPPERS[name] for name in ("mup", "quantize_moments", "per_layer")},
}
# Public names that are no method of a tree of leaves.
OTHERS = {
    *[
        "Axes",
        "Buckets",
        "Constraint",
        "FusedTransformation",
        "Growth",
        "OUTPUTS_FIRST",
        "WeightNormLatents",
    ],
    *(name for name in o.__all__ if name.endswith("State")),
    # The one resolver, and functions of one array and its axes.
    *[
        "cosine",
        "geometry",
        "project_tangent",
        "resolve_axes",
        "retract",
        "unit_axes",
        "unit_norm",
    ],
    # Functions of numbers, and modules.
    *["constraints", "lawn_schedule", "mup_rule", "standard_rule"],
    # Carriers of others' rules.
    *["apply_fused", "leaf_constraint"],
}
# Functions of a tree, tested below.
FUNCTIONS = {
    *["data_dependent_init", "hidden_matrices", "layer_index_rescaling"],
    *["learning_rate_factors", "mup_initialization", "width_growth"],
}


def descending(direction):
    return optax.chain(direction, optax.scale(-0.1))


def ascending(optimizer):
    return optax.chain(optimizer, optax.scale(-1.0))


def cubes(tree):
    return jax.tree.map(lambda z: z**3 + z, tree)


def roots(tree):
    """Newton's method, from the weight itself."""

    def root(w):
        z = w
        for _ in range(30):
            z = z - (z**3 + z - w) / (3 * z**2 + 1)
        return z

    return jax.tree.map(root, tree)


def test_every_public_name_has_a_row():
    tables = (METHODS, PLAIN, WRAPPERS, SETS, OTHERS, FUNCTIONS)
    assert set().union(*tables) == set(o.__all__)


def loss(tree):
    """Of single layers: each leaf has a scale and a tilt of its own."""
    total = 0.0
    for i, leaf in enumerate(jax.tree.leaves(tree)):
        tilt = np.cos(np.arange(leaf.size)).reshape(leaf.shape).astype(np.float32)
        total = total + jnp.mean((leaf - tilt) ** 2) * (1 + i % 5)
    return total


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_string(path): np.asarray(leaf) for path, leaf in leaves}


def train(optimizer, params, stacked=None, steps=3):
    def value_fn(tree):
        return loss(unstack(tree, stacked))

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(value_fn)(params)
        extra = dict(value=value, grad=grads, obj_fn=value_fn)
        updates, state = optimizer.update(grads, state, params, **extra)
        return (optax.apply_updates(params, updates), state), None

    optimizer = optax.with_extra_args_support(optimizer)
    params = jax.tree.map(jnp.asarray, params)
    start = params, optimizer.init(params)
    (params, _), _ = jax.lax.scan(step, start, length=steps)
    return unstack(params, stacked)


def check(make, explicit, rtol=2e-5):
    """The same weights from all layouts, in one program."""

    @functools.partial(jax.jit, compiler_options=FAST)
    def all_layouts():
        found = [train(make(), LIST), train(make(), NAMED)]
        if explicit:
            found.append(train(make(stacked=STACKED), TOLD, STACKED))
        return found

    with jax.numpy_dtype_promotion("standard"):  # optax: a float to an int32 count
        wanted, *others = map(by_path, all_layouts())
    start = by_path(LIST)
    moved = {path for path in wanted if np.any(wanted[path] != start[path])}
    assert {path for path in wanted if path.startswith("blocks/")} <= moved
    for other in others:
        assert other.keys() == wanted.keys()
        for path, leaf in wanted.items():
            np.testing.assert_allclose(
                other[path], leaf, rtol=rtol, atol=rtol, err_msg=path
            )


@pytest.mark.parametrize("name", METHODS)
def test_methods(name):
    check(METHODS[name], explicit=True)


@pytest.mark.parametrize("name", PLAIN)
def test_methods_that_look_at_no_leaf(name):
    check(PLAIN[name], explicit=False)


@pytest.mark.parametrize("name", SETS)
def test_sets(name):
    check(lambda **s: o.constrain(INNER["sgd"](), SETS[name](**s)), explicit=True)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers(name, inner):
    explicit = name not in PLAIN_ONES
    check(lambda **s: WRAPPERS[name](INNER[inner](), **s), explicit)


TELLING = [name for name in WRAPPERS if name not in PLAIN_ONES]


@pytest.mark.parametrize(
    ("name", "between"), [*zip(TELLING, itertools.cycle(BETWEEN), strict=False)]
)
def test_nested_wrappers_see_the_same_layers(name, between):
    """What is told of a stack that was taken apart does not hold of its layers.

    Whoever is told, the wrapper, what it holds and what that holds, or the first alone.
    """

    def seen(params, told, **s):
        layers = set()

        def look(updates, params=None):
            stacks = Stacks(updates, s.get("stacked"))
            for path, leaf in by_path_of(updates).items():
                shape = leaf.shape[len(stacks.sizes_of(path)) :]
                layers.update((layer, shape) for layer, _ in stacks.layers_of(path))
            return updates

        looks = optax.stateless(look)
        inner = BETWEEN[between](optax.chain(looks, LAYERWISE), **s)
        s["stacked"] = told
        optimizer = WRAPPERS[name](inner, **{} if told is None else {"stacked": told})
        optimizer = optax.with_extra_args_support(optimizer)
        params = jax.tree.map(jnp.asarray, params)
        with jax.numpy_dtype_promotion("standard"):
            jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), params)
        return layers

    wanted = seen(LIST, None)
    assert any("blocks/1/up/bias" in path for path, _ in wanted)
    assert seen(NAMED, None) == wanted
    for own in ({}, {"stacked": STACKED}):
        assert seen(TOLD, STACKED, **own) == wanted


@pytest.mark.parametrize(
    "make",
    [
        lambda **s: o.lawn(
            optax.chain(optax.clip_by_global_norm(1.0), o.fadam(0.1, weight_decay=0.0)),
            free_steps=1,
            **s,
        ),
        lambda **s: o.mup(
            WRAPPERS["quantize_moments"](optax.lamb(0.1), **s), base, **s
        ),
    ],
    ids=["lawn(clip, fadam)", "mup(quantize_moments(lamb))"],
)
def test_nested_wrappers(make):
    check(make, explicit=True)


# Trees of the structure of the model as it is; some act number by number.
DECAYING = jax.tree.map(lambda w: w.ndim == 2, NAMED)
LABELS = jax.tree.map(lambda decays: "ab"[decays], DECAYING)
WITH_TREES = {
    "adamw": lambda: optax.adamw(0.1, mask=DECAYING),
    "masked": lambda: optax.masked(optax.sgd(0.1, momentum=0.9), DECAYING),
    "partition": lambda: optax.partition(
        {"a": optax.adam(0.1), "b": optax.sgd(0.1)}, LABELS
    ),
    "adamp": lambda: o.adamp(0.1, weight_decay_mask=DECAYING),
    "mup": lambda: o.mup(optax.lamb(0.1), HALF["named"]),
    "lamb": lambda: optax.lamb(0.1, mask=DECAYING),
    "muon": lambda: optax.contrib.muon(
        0.1, muon_weight_dimension_numbers=o.hidden_matrices(NAMED)
    ),
}


@pytest.mark.parametrize("inner", WITH_TREES)
def test_trees_of_the_structure_with_stacks(inner):
    """What acts number by number takes them; for the rest it is said what to give."""
    by_layers = inner in ("mup", "lamb", "muon")
    # Weight norm hands down a tree of another structure.
    names = [n for n in TELLING if n not in ("weight_norm", "per_layer")]
    names = names if inner in ("adamw", "partition") else names[:2]
    for name in ["per_layer", "lawn"] if by_layers else names:
        optimizer = optax.with_extra_args_support(WRAPPERS[name](WITH_TREES[inner]()))

        def step(params, optimizer=optimizer):
            return optimizer.update(params, optimizer.init(params), params)

        with jax.numpy_dtype_promotion("standard"):
            if by_layers:
                with pytest.raises(ValueError, match="has to be a function of the par"):
                    jax.eval_shape(step, NAMED)
            else:
                jax.eval_shape(step, NAMED)


# The entry points that run kernels, through the interpreter.
FUSED = {
    "adamp": lambda **s: o.adamp(0.1, implementation="tpu", **s),
    "fadam": lambda **s: o.fadam(0.1, implementation="tpu", **s),
    "hyperball": lambda **s: o.hyperball(
        optax.identity(), 0.1, implementation="tpu", **s
    ),
    "adamp_8bit": lambda **s: o.adamp_8bit(0.1, min_size=7, block=8, **s),
    "per_layer": lambda **s: o.per_layer(o.adamp(0.1, implementation="tpu"), **s),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_entry_points(name, monkeypatch):
    monkeypatch.setattr(pl, "pallas_call", functools.partial(_interpreted, CALL))

    def step(params, stacked=None):
        optimizer = FUSED[name](**({"stacked": stacked} if stacked else {}))
        params = jax.tree.map(jnp.asarray, params)
        grads = jax.grad(lambda tree: loss(unstack(tree, stacked)))(params)
        state = optimizer.init(params)
        moved, _ = o.apply_fused(optimizer, grads, state, params)
        return by_path_of(unstack(moved, stacked))

    def all_layouts():
        return step(LIST), step(NAMED), step(TOLD, STACKED)

    wanted, *others = jax.jit(all_layouts, compiler_options=FAST)()
    for other in others:
        assert other.keys() == wanted.keys()
        for path, leaf in wanted.items():
            np.testing.assert_allclose(other[path], leaf, atol=2e-5, err_msg=path)


CALL = pl.pallas_call


def _interpreted(call, *args, **kwargs):
    return call(*args, **kwargs | {"interpret": True})


def by_path_of(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_string(path): leaf for path, leaf in leaves}


def same(make):
    """Asserts that a function of the parameters gives the same in all layouts."""
    wanted = by_path(make(LIST))
    for params, stacked in ((NAMED, None), (TOLD, STACKED)):
        declared = {} if stacked is None else {"stacked": stacked}
        found = by_path(unstack(make(params, **declared), stacked))
        assert found.keys() == wanted.keys()
        for path, leaf in wanted.items():
            np.testing.assert_allclose(found[path], leaf, rtol=1e-5, err_msg=path)


def test_initializers():
    key = jax.random.key(1)
    same(lambda p, **s: o.layer_index_rescaling(key, p, **s))

    def smaller(params):
        """The base model, with values: not all layers' alike."""
        shapes = base(params)
        return jax.tree.map(lambda w, x: w[tuple(map(slice, x.shape))], params, shapes)

    same(lambda p, **s: o.mup_initialization(p, smaller(p), **s))


def test_factors():
    rule = o.mup_rule("adam")

    def of_all(params, growth):
        """A number a leaf, of every layer of a stack."""
        return jax.tree.map(lambda w, x: np.full(np.shape(w), x), params, growth)

    def factors(params, **s):
        return of_all(params, o.learning_rate_factors(params, base, rule, **s))

    same(factors)


def test_data_dependent_init():
    """Layers of a stack are set one after another, each on what the last puts out."""
    generator = np.random.default_rng(0)
    batch = generator.normal(size=(32, 4)).astype(np.float32)
    blocks = [
        {
            "up": {"kernel": generator.normal(size=(4, 6)), "bias": np.ones(6)},
            "down": {"kernel": generator.normal(size=(6, 4)), "bias": np.ones(4)},
        }
        for _ in range(LAYERS)
    ]
    blocks = jax.tree.map(np.float32, blocks)
    stack = jax.tree.map(lambda *x: np.stack(x), *blocks)

    def of_list(params, x):
        found = {}
        for i in sorted(params["blocks"]):
            for name in ("up", "down"):
                layer = params["blocks"][i][name]
                x = x @ layer["kernel"] + layer["bias"][None]
                found[f"blocks/{i}/{name}/kernel"] = x
                x = jnp.tanh(x)
        return found

    def of_stack(params, x, prefix):
        def block(x, layers):
            seen = {}
            for name in ("up", "down"):
                x = x @ layers[name]["kernel"] + layers[name]["bias"][None]
                seen[f"{prefix}{name}/kernel"] = x
                x = jnp.tanh(x)
            return x, seen

        stack = params["blocks"].get("stacked", params["blocks"])
        found = jax.lax.scan(block, x, stack)[1]
        return {
            f"{prefix}{name}/kernel": found[f"{prefix}{name}/kernel"]
            for name in ("up", "down")
        }

    listed = {"blocks": {str(i): block for i, block in enumerate(blocks)}}
    wanted = by_path(o.data_dependent_init(of_list, listed, batch))
    for params, prefix, stacked in (
        ({"blocks": {"stacked": stack}}, "blocks/stacked/", None),
        ({"blocks": stack}, "blocks/", STACKED),
    ):
        layers = functools.partial(of_stack, prefix=prefix)
        found = o.data_dependent_init(layers, params, batch, stacked=stacked)
        found = by_path(unstack(found, stacked))
        assert found.keys() == wanted.keys()
        for path, leaf in wanted.items():
            np.testing.assert_allclose(found[path], leaf, rtol=2e-5, atol=2e-6)


def test_hidden_matrices():
    """The axis of layers is a batch of Muon's, and its updates those of a list."""

    def muon(**declared):
        numbers = functools.partial(o.hidden_matrices, **declared)
        return optax.contrib.muon(
            0.1, consistent_rms=0.2, muon_weight_dimension_numbers=numbers
        )

    assert o.hidden_matrices(NAMED)["blocks"]["stacked"]["query"]["kernel"] == (
        (1,),
        (2, 3),
    )
    check(muon, explicit=True, rtol=1e-4)


def test_states_are_shaped_like_the_parameters():
    """Also those of what sees the layers one by one: shardings and checkpoints fit."""
    params = jax.tree.map(jnp.asarray, NAMED)
    chain = optax.chain(optax.clip(1.0), optax.masked(optax.lamb(0.1), by_rank))
    optimizer = o.per_layer(chain)
    state = optimizer.init(params)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    assert shapes.count((LAYERS, 4, 2, 3)) == 2
    mapped = optax.tree.map_params(optimizer, lambda leaf: leaf + 1, state)
    assert jax.tree.structure(mapped) == jax.tree.structure(state)


def test_a_selection_of_some_layers_of_a_stack_is_refused():
    with pytest.raises(ValueError, match="some layers of 'blocks/stacked/up/bias'"):
        o.lawn(INNER["sgd"](), free_steps=0, constrained="blocks/1/up").init(NAMED)
