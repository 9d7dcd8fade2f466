"""constrain: the mechanism, its small constraints, and what it refuses to wrap."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gnomon import optimizers
from gnomon.optimizers.mechanisms.composition import norm_control, refuse_decay
from gnomon.optimizers.mechanisms.constrain import constrain
from gnomon.optimizers.mechanisms.sets import (
    fixed_norm,
    max_norm,
    target_std,
    unit_sphere,
)

GIVEN = {
    "constrain": dict(constraint=optimizers.fixed_norm()),
    "max_norm": dict(bound=1.0),
    "target_std": dict(target=0.1),
}
LAYERS = {
    "constrain": lambda i, **s: optimizers.constrain(i, optimizers.max_norm(1.0, **s)),
    "max_norm": lambda **s: optimizers.max_norm(1.0, view="layer", **s),
    "target_std": lambda **s: optimizers.target_std(0.3, **s),
    "leaf_constraint": None,  # all constraints above are made by it
}


def random_tree(seed=0, scale=1.0):
    shapes = {
        "dense": {"kernel": (6, 4), "bias": (4,)},
        "conv": {"kernel": (2, 2, 3, 4)},
        "embed": {"embedding": (5, 3)},
        "query": {"kernel": (4, 2, 3)},
        "temperature": (),
    }
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(scale * generator.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def trajectory(optimizer, params, steps=8, seed=1):
    """Parameters and updates of every step, taken under jit."""
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    rows = []
    for step in range(steps):
        grads = jax.tree.map(
            lambda g, w: g.astype(w.dtype), random_tree(seed + step), params
        )
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        rows.append((params, updates))
    return rows


def assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("view", ["layer", "unit"])
@pytest.mark.parametrize("kind", ["fixed_norm", "unit_sphere", "max_norm"])
def test_equals_a_numpy_transcription(x64, oracle, kind, view):
    """Momentum SGD, constrained at updates 7, 9, 11, ... of 60."""
    rate, momentum, start, every = 0.05, 0.9, 5, 2

    def rule(w, g, memory, t):
        memory["b"] = momentum * memory.get("b", 0.0) + g
        moved = w - rate * memory["b"]
        if w.ndim < 2:
            return moved, "free"
        axis = 1 if view == "unit" else None
        if t == start + 1:
            memory["c"] = np.sqrt(np.sum(w * w, axis=axis, keepdims=True))
        if t <= start or (t - start) % every:
            return moved, "between"
        norm = np.sqrt(np.sum(moved * moved, axis=axis, keepdims=True))
        goal = {
            "fixed_norm": memory["c"],
            "unit_sphere": 1.0,
            "max_norm": np.minimum(norm, 2.0),
        }[kind]
        return moved * goal / norm, "constrained"

    make = {
        "fixed_norm": fixed_norm,
        "unit_sphere": unit_sphere,
        "max_norm": lambda **options: max_norm(2.0, **options),
    }[kind]
    optimizer = constrain(
        optax.sgd(rate, momentum=momentum),
        make(view=view, stacked="^blocks/"),
        start=start,
        every=every,
    )
    views = oracle.compare(optimizer, rule, steps=60, atol=1e-10)
    assert {"free", "between", "constrained"} == set(views)


def test_free_leaves_and_free_updates_are_those_of_the_inner_optimizer():
    """To the bit: before the start, between periods, and on leaves not selected."""
    params = random_tree()
    inner = optax.sgd(0.1, momentum=0.9)
    optimizer = constrain(
        inner, fixed_norm(constrained="^dense/kernel$"), start=2, every=2
    )
    wanted = trajectory(inner, params)
    for t, (got, plain) in enumerate(
        zip(trajectory(optimizer, params), wanted, strict=True), start=1
    ):
        if t < 4:
            assert_equal(got, plain)
        free = [{**p, "dense": p["dense"]["bias"]} for p in (got[0], plain[0])]
        assert_equal(*free)
    assert np.any(got[0]["dense"]["kernel"] != plain[0]["dense"]["kernel"])


def test_entries_that_the_set_leaves_alone_keep_their_update():
    """w + u - w is not u in floating point; inside the ball the update is u itself."""
    params = random_tree()
    inner = optax.sgd(1e-3)
    inside = constrain(inner, max_norm(1e3))
    for got, wanted in zip(
        trajectory(inside, params), trajectory(inner, params), strict=True
    ):
        assert_equal(got, wanted)


@pytest.mark.parametrize("tangent", ["none", "both"])
def test_start_and_every_may_be_traced_and_batched(tangent):
    """One vmapped program over (start, every) equals one optimizer for each."""
    kernel = random_tree()["dense"]["kernel"]

    def norms(start, every):
        optimizer = constrain(
            optax.sgd(0.1, momentum=0.9),
            fixed_norm(),
            start=start,
            every=every,
            tangent=tangent,
        )
        w, state, found = kernel, optimizer.init(kernel), []
        for step in range(6):
            updates, state = optimizer.update(jnp.cos(w + step), state, w)
            w = w + updates
            found.append(jnp.linalg.norm(w))
        return jnp.stack(found)

    pairs = [(0, 1), (3, 1), (1, 2), (10, 3)]
    starts, periods = (jnp.array(x, jnp.float32) for x in zip(*pairs, strict=True))
    batched = jax.vmap(norms)(starts, periods)
    for got, (start, every) in zip(batched, pairs, strict=True):
        np.testing.assert_allclose(got, norms(start, every), rtol=1e-6)


def test_the_norm_of_bfloat16_weights_does_not_drift():
    """Held to the rounding of its entries after 300 steps as after one."""
    params = jax.tree.map(lambda w: w.astype(jnp.bfloat16), random_tree())
    optimizer = constrain(optax.sgd(0.05), fixed_norm())

    def norm(w):
        return np.linalg.norm(np.asarray(w, np.float64))

    rows = trajectory(optimizer, params, steps=300)
    for name in ("dense", "conv"):
        first = norm(params[name]["kernel"])
        errors = [abs(norm(p[name]["kernel"]) / first - 1) for p, _ in rows]
        assert max(errors) < 2**-9
        assert np.mean(errors[-50:]) < 2 * np.mean(errors[:50])


def test_stacked_layers_are_constrained_one_by_one():
    """A scanned stack moves as its layers do when each is a leaf."""
    layers = [random_tree(seed)["dense"]["kernel"] for seed in range(3)]
    grads = [random_tree(seed)["dense"]["kernel"] for seed in range(5, 8)]
    for view in ("layer", "unit"):
        one = constrain(optax.sgd(0.3), fixed_norm(view=view), tangent="both")
        stacked = constrain(
            optax.sgd(0.3), fixed_norm(view=view, stacked="blocks"), tangent="both"
        )
        w, g = ({"blocks": jnp.stack(x)} for x in (layers, grads))
        updates, _ = stacked.update(g, stacked.init(w), w)
        for i, (w, g) in enumerate(zip(layers, grads, strict=True)):
            alone, _ = one.update({"kernel": g}, one.init({"kernel": w}), {"kernel": w})
            np.testing.assert_allclose(
                updates["blocks"][i], alone["kernel"], rtol=1e-6, atol=1e-7
            )


@pytest.mark.parametrize("view", ["layer", "unit"])
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_sharded_equals_unsharded(view, axis_type):
    """Norms of rows and columns that are spread over 8 devices."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type,) * 2)
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)
    optimizer = constrain(
        optax.sgd(0.1, momentum=0.9), fixed_norm(view=view), start=1, tangent="both"
    )

    @jax.jit
    def run(params):
        state = optimizer.init(params)
        for step in range(3):
            grads = {"kernel": jnp.cos(params["kernel"] + step)}
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    wanted, _ = run({"kernel": kernel})
    sharding = NamedSharding(mesh, PartitionSpec("data", "model"))
    with jax.set_mesh(mesh):
        got, state = run({"kernel": jax.device_put(kernel, sharding)})
    np.testing.assert_allclose(got["kernel"], wanted["kernel"], rtol=1e-6)
    assert got["kernel"].sharding.is_equivalent_to(sharding, 2)
    assert state.reference["kernel"].shape == ((1, 4) if view == "unit" else (1, 1))


def test_masked_and_missing_leaves_pass_through():
    """Leaves without a gradient stay; hidden leaves are neither read nor touched."""
    params = {"kernel": jnp.ones((3, 2)), "other": jnp.ones((3, 2)), "none": None}
    grads = {"kernel": jnp.eye(3, 2), "other": None, "none": None}
    optimizer = optax.masked(
        constrain(optax.sgd(0.1), fixed_norm(), tangent="both"),
        {"kernel": True, "other": False, "none": False},
    )
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    assert updates["other"] is None
    moved = params["kernel"] + updates["kernel"]
    assert jnp.linalg.norm(moved) == pytest.approx(6**0.5, rel=1e-6)
    frozen = constrain(optax.sgd(0.1), fixed_norm(), tangent="both")
    updates, _ = frozen.update(grads, frozen.init(params), params)
    assert updates["other"] is None


def test_optax_can_map_over_the_parameters_of_the_state():
    """References are not shaped like parameters, and are told from them."""
    params = random_tree()
    mask = jax.tree.map(lambda w: w.ndim > 2, params)
    other = "not a parameter"
    cases = ((fixed_norm(constrained=mask), other), (unit_sphere(), ()))
    for constraint, reference in cases:
        optimizer = constrain(optax.sgd(0.1, momentum=0.9), constraint)
        state = optimizer.init(params)
        mapped = optax.tree.map_params(
            optimizer,
            lambda leaf, name: name,
            state,
            jax.tree.map(jnp.ndim, params),
            transform_non_params=lambda leaf: other,
        )
        assert mapped.reference == reference
        assert mapped.inner[0].trace == jax.tree.map(jnp.ndim, params)


def test_muon_on_the_sphere():
    """optax's own Muon, constrained: matrices keep their norm, and the loss falls."""
    target = random_tree(3)["dense"]["kernel"]

    def loss(params):
        return jnp.sum((params["kernel"] - target) ** 2)

    params = {"kernel": random_tree(4)["dense"]["kernel"]}
    with jax.numpy_dtype_promotion("standard"):
        optimizer = constrain(optax.contrib.muon(0.05), fixed_norm(), tangent="both")
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        norm, first = float(jnp.linalg.norm(params["kernel"])), loss(params)
        for _ in range(150):
            updates, state = update(jax.grad(loss)(params), state, params)
            params = optax.apply_updates(params, updates)
            assert jnp.linalg.norm(params["kernel"]) == pytest.approx(norm, rel=1e-6)
    # The best that the sphere allows is the difference of the norms.
    best = (jnp.linalg.norm(target) - norm) ** 2
    assert loss(params) - best < 0.1 * (first - best)


# Zero, or large enough for its square to be a float32.
numbers = st.floats(-10, 10, width=32).filter(lambda x: x == 0 or abs(x) > 1e-15)
matrices = st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=2, max_size=5)


@settings(max_examples=50, deadline=None)
@given(matrices, st.sampled_from(["layer", "unit"]))
def test_projections_are_projections(rows, view):
    """Twice is once, and max_norm never lengthens."""
    w = {"kernel": jnp.asarray(rows, jnp.float32)}
    for constraint in (unit_sphere(view=view), max_norm(1.5, view=view)):
        once = constraint.project(w, ())["kernel"]
        twice = constraint.project({"kernel": once}, ())["kernel"]
        np.testing.assert_allclose(twice, once, rtol=1e-5, atol=1e-30)
    axis = 0 if view == "unit" else None
    lengths = np.linalg.norm(np.float64(once), axis=axis)
    assert np.all(lengths <= 1.5 * (1 + 1e-6))
    assert np.all(lengths <= np.linalg.norm(np.float64(w["kernel"]), axis=axis) + 1e-6)


@settings(max_examples=50, deadline=None)
@given(matrices, st.integers(0, 2**31 - 1), st.sampled_from(["layer", "unit"]))
def test_tangents_are_orthogonal_to_the_weights(rows, seed, view):
    w = jnp.asarray(rows, jnp.float32)
    u = jax.random.normal(jax.random.key(seed), w.shape)
    tangent = fixed_norm(view=view).tangent({"kernel": u}, {"kernel": w})["kernel"]
    axis = 0 if view == "unit" else None
    inner = np.sum(np.float64(tangent) * np.float64(w), axis=axis)
    scale = np.linalg.norm(np.float64(w), axis=axis)
    assert np.all(np.abs(inner) <= 1e-5 * scale * np.linalg.norm(u))


def ascent_of(optimizer):
    return optax.chain(optimizer, optax.scale(-1.0))


WRAPPERS = {
    "constrain": lambda inner: constrain(inner, fixed_norm()),
    "lawn": lambda inner: optimizers.lawn(inner, free_steps=1),
    "hyperball": lambda inner: optimizers.hyperball(ascent_of(inner), 0.1),
    "target_variance_rescaling": lambda inner: optimizers.target_variance_rescaling(
        inner, constrained="kernel"
    ),
}
INSIDE = {
    "fixed_norm": constrain(optax.sgd(0.1), fixed_norm()),
    "lawn": optimizers.lawn(optax.sgd(0.1), free_steps=1),
    "hyperball": optimizers.hyperball(optax.identity(), 0.1),
    "add_norm_loss": optax.chain(optimizers.add_norm_loss(), optax.sgd(0.1)),
    "target_variance_rescaling": optimizers.target_variance_rescaling(
        optax.sgd(0.1), constrained="kernel"
    ),
}


@pytest.mark.parametrize("outer", WRAPPERS)
@pytest.mark.parametrize("inside", INSIDE)
def test_two_norm_controllers_on_one_leaf_are_refused_by_name(outer, inside):
    params = random_tree()
    owner = "fixed_norm" if outer == "constrain" else outer
    with pytest.raises(ValueError, match=f"{owner} wraps {inside} .*kernel"):
        WRAPPERS[outer](INSIDE[inside]).init(params)


def test_norm_controllers_may_share_a_tree():
    """On different leaves, or side by side in different groups."""
    params = random_tree()
    inner = optimizers.lawn(optax.sgd(0.1), free_steps=1, constrained="^dense")
    optimizer = constrain(inner, unit_sphere(constrained="^embed"))
    assert jnp.isfinite(trajectory(optimizer, params)[-1][0]["dense"]["kernel"]).all()
    groups = optax.partition(
        {"a": inner, "b": constrain(optax.sgd(0.1), unit_sphere())},
        {name: "a" if name == "dense" else "b" for name in params},
    )
    groups.init(params)
    # A refusal leaves nothing behind.
    with pytest.raises(ValueError, match="lawn wraps lawn"):
        optimizers.lawn(inner, free_steps=1).init(params)
    inner.init(params)


@pytest.mark.parametrize(
    "nest",
    [
        lambda t: optax.chain(optax.clip(1.0), t),
        lambda t: optax.masked(t, {"dense": True, "embed": False}),
        lambda t: optax.partition(
            {"a": t, "b": optax.sgd(1.0)}, {"dense": "a", "embed": "b"}
        ),
        lambda t: optax.MultiSteps(t, 2),
        lambda t: optax.inject_hyperparams(lambda rate: t)(0.1),
    ],
    ids=["chain", "masked", "partition", "MultiSteps", "inject_hyperparams"],
)
def test_refusals_reach_through_the_combinators_of_optax(nest):
    params = {name: random_tree()[name] for name in ("dense", "embed")}
    inner = nest(INSIDE["lawn"])
    if isinstance(inner, optax.MultiSteps):
        inner = inner.gradient_transformation()
    with pytest.raises(ValueError, match="hyperball wraps lawn"):
        optimizers.hyperball(ascent_of(inner), 0.1).init(params)


def decaying(rate, mask):
    """A transform that joins the check on weight decay."""

    def init(params):
        refuse_decay("decaying", rate, mask, params)
        return optax.EmptyState()

    return optax.GradientTransformation(
        init, lambda u, s, p=None: (jax.tree.map(jnp.negative, u), s)
    )


def test_weight_decay_under_a_fixed_norm_is_refused_by_name():
    params = random_tree()

    everywhere = None

    def biases(params):
        return jax.tree.map(lambda w: w.ndim < 2, params)

    for rate in (0.1, optax.constant_schedule(0.1)):
        inner = decaying(rate, everywhere)
        for outer in ("constrain", "lawn", "hyperball"):
            with pytest.raises(ValueError, match=r"fixes the norm of .* decaying"):
                WRAPPERS[outer](inner).init(params)
        # TVR and a bound on the norm go well with decay.
        WRAPPERS["target_variance_rescaling"](inner).init(params)
        constrain(inner, max_norm(1.0)).init(params)
        inner.init(params)
    WRAPPERS["lawn"](decaying(0.0, everywhere)).init(params)
    WRAPPERS["lawn"](decaying(0.1, biases)).init(params)
    # A traced rate is not looked into.
    jax.jit(lambda r: WRAPPERS["lawn"](decaying(r, everywhere)).init(params))(0.1)


def test_a_wrapper_can_claim_leaves_of_two_trees():
    """As one does that hands its inner transform another tree than the weights."""
    inner = constrain(optax.sgd(0.1), target_std(0.1, constrained="direction"))
    with (
        pytest.raises(ValueError, match=r"outer wraps target_std .*'v/direction'"),
        norm_control("outer", {"kernel": True}),
        norm_control("outer", {"v": {"direction": True, "scale": False}}),
    ):
        inner.init({"v": {"direction": jnp.ones((2, 2)), "scale": jnp.ones(2)}})


def test_bad_arguments_are_refused_with_the_fix():
    params = random_tree()
    with pytest.raises(ValueError, match="tangent='update' is not one of"):
        constrain(optax.sgd(0.1), fixed_norm(), tangent="update")
    with pytest.raises(ValueError, match="'max_norm' has no tangents"):
        constrain(optax.sgd(0.1), max_norm(1.0), tangent="both")
    with pytest.raises(ValueError, match="view='row' is not one of"):
        fixed_norm(view="row")
    with pytest.raises(ValueError, match="start must be a scalar"):
        constrain(optax.sgd(0.1), fixed_norm(), start=jnp.ones(2))
    with pytest.raises(ValueError, match=r"constrained='kernal' matches no .*dense/"):
        constrain(optax.sgd(0.1), fixed_norm(constrained="kernal")).init(params)
    optimizer = constrain(optax.sgd(0.1), fixed_norm())
    with pytest.raises(ValueError, match="fixed_norm needs the current parameters"):
        optimizer.update(params, optimizer.init(params))
