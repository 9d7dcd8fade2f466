"""The motion of a step against dense formulas, and the identities it must obey."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.dynamics import Motion, layer_motion, layers_of, leaf_sums, motion
from gnomon.dynamics.layers import pool

SHAPES = {
    "conv": {"kernel": (3, 3, 2, 4), "bias": (4,)},
    "out": {"kernel": (8, 6)},
    "temperature": (),
}


def trees(count, dtype=np.float64, shapes=SHAPES):
    rng = np.random.default_rng(0)
    return [
        jax.tree.map(
            lambda shape: jnp.asarray(rng.normal(size=shape), dtype),
            shapes,
            is_leaf=lambda x: isinstance(x, tuple),
        )
        for _ in range(count)
    ]


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def test_every_field_against_the_dense_formula(x64):
    """A layer is the concatenation of its leaves; so is the whole model."""
    params, updates, grads, start = trees(4)
    record = jax.jit(layer_motion)(
        params, updates, grads, start=start, learning_rate=0.1
    )
    names = layers_of(params).names
    assert names == ("conv", "out", "temperature")
    for i, layer in enumerate([*names, None]):

        def part(tree, layer=layer):
            return tree if layer is None else tree[layer]

        def cos(a, b):
            return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

        w, u, g, w0 = (flat(part(t)) for t in (params, updates, grads, start))
        leaves = [np.ravel(x) for x in jax.tree.leaves(part(params))]
        variance = sum(np.sum((x - x.mean()) ** 2) for x in leaves) / w.size
        wanted = Motion(
            weight_norm=np.linalg.norm(w),
            weight_std=np.sqrt(variance),
            gradient_norm=np.linalg.norm(g),
            update_norm=np.linalg.norm(u),
            update_ratio=np.linalg.norm(u) / np.linalg.norm(w),
            growth=(w + u) @ (w + u) - w @ w,
            growth_radial=2 * w @ u,
            growth_step=u @ u,
            radial_update=cos(w, u) ** 2,
            radial_gradient=cos(w, g) ** 2,
            gradient_cosine=cos(w, g),
            descent_cosine=cos(u, -g),
            angle=np.arccos(cos(w, w + u)),
            effective_rate=0.1 / (w @ w),
            effective_rate_adam=0.1 / np.linalg.norm(w),
            distance=np.linalg.norm(w + u - w0),
        )
        for name, field, value in zip(Motion._fields, record, wanted, strict=True):
            # The arc cosine of the formula is exact to 1e-8 for a scalar's zero angle.
            tolerance = 1e-7 if name == "angle" else 1e-12
            np.testing.assert_allclose(
                field[i], value, tolerance, tolerance, err_msg=f"{name} of layer {i}"
            )


def test_momentum_makes_scale_invariant_norms_grow_by_its_identity(x64):
    r"""|w'|^2 = |w|^2 + lr^2 |p|^2 + 2 lr^2 sum_{k<t} beta^(t-k) |p_k|^2."""
    rate, beta, steps = 0.05, 0.9, 60
    target = jnp.linspace(-1.0, 1.0, 12)

    def loss(w):
        return -jnp.sum(target * w) / jnp.linalg.norm(w)

    optimizer = optax.sgd(rate, momentum=beta)

    def step(carry, _):
        w, state = carry
        grads = jax.grad(loss)(w)
        updates, state = optimizer.update(grads, state)
        return (w + updates, state), motion(leaf_sums(w, updates, grads), rate)

    w = jnp.cos(jnp.arange(12.0))
    (final, _), seen = jax.lax.scan(step, (w, optimizer.init(w)), length=steps)
    p_squared = seen.growth_step[:, 0] / rate**2
    for t in range(steps):
        past = sum(beta ** (t - k) * p_squared[k] for k in range(t))
        wanted = rate**2 * p_squared[t] + 2 * rate**2 * past
        np.testing.assert_allclose(seen.growth[t, 0], wanted, atol=1e-12, rtol=0)
    total = jnp.sum(w**2) + jnp.sum(seen.growth)
    np.testing.assert_allclose(jnp.sum(final**2), total, rtol=1e-12)
    # Gradient descent's step alone would explain less than half of the growth.
    assert jnp.sum(seen.growth_step) < 0.5 * jnp.sum(seen.growth)


def test_gradients_of_a_scale_invariant_network_have_no_radial_part():
    """Float32; the layer whose output is not normalized tells itself apart."""

    def normalize(x):
        return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True))

    def loss(params, x, y):
        for name in ("first", "second"):
            x = normalize(jnp.tanh(normalize(x @ params[name]["kernel"])))
        return jnp.mean(jnp.square(x @ params["last"]["kernel"] - y))

    shapes = {n: {"kernel": (16, 16)} for n in ("first", "last", "second")}
    (params,) = trees(1, np.float32, shapes)
    x, y = (jax.random.normal(jax.random.key(i), (32, 16)) for i in range(2))
    record = jax.jit(lambda p: layer_motion(p, grads=jax.grad(loss)(p, x, y)))(params)
    share = dict(zip(layers_of(params).names, record.radial_gradient, strict=False))
    assert share["first"] < 1e-6
    assert share["second"] < 1e-6
    assert share["last"] > 1e-2


def test_small_angles_keep_their_digits_in_float32():
    w = jnp.zeros(64).at[0].set(3.0)
    u = jnp.zeros(64).at[0].set(2e-7).at[1].set(3e-5)
    angle = motion(leaf_sums(w, u)).angle[0]
    np.testing.assert_allclose(angle, 1e-5, rtol=1e-6)


def test_what_cannot_be_computed_is_nan_and_nothing_else_is():
    w, zero = jnp.ones(3), jnp.zeros(3)
    undefined = {
        name: {
            f for f, v in zip(Motion._fields, record, strict=True) if jnp.isnan(v[0])
        }
        for name, record in {
            "zero weight": motion(leaf_sums(zero, w, w, w), 0.1),
            "zero update": motion(leaf_sums(w, zero, w, w), 0.1),
            "zero gradient": motion(leaf_sums(w, w, zero, w), 0.1),
            "weights alone": motion(leaf_sums(w)),
        }.items()
    }
    assert undefined["zero weight"] == {
        *("update_ratio", "radial_update", "radial_gradient", "gradient_cosine"),
        *("angle", "effective_rate", "effective_rate_adam"),
    }
    assert undefined["zero update"] == {"radial_update", "descent_cosine"}
    assert undefined["zero gradient"] == {
        *("radial_gradient", "gradient_cosine", "descent_cosine"),
    }
    assert undefined["weights alone"] == {*Motion._fields} - {
        "weight_norm",
        "weight_std",
    }


def test_a_leaf_without_gradient_counts_as_one_that_stands_still():
    params = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    step = {"a": jnp.array([0.5]), "b": None}
    record = layer_motion(params, step, step)
    np.testing.assert_allclose(record.update_norm, [0.5, 0.0, 0.5])
    np.testing.assert_allclose(record.update_ratio, [0.5 / 3, 0.0, 0.1])


def test_bfloat16_trees_are_summed_in_float32():
    """4096 ones: a bfloat16 sum would stop at 256."""
    params = {"w": jnp.ones(4096, jnp.bfloat16)}
    record = layer_motion(params, params, params, learning_rate=0.1)
    assert record.weight_norm.dtype == jnp.float32
    np.testing.assert_array_equal(record.weight_norm, [64.0, 64.0])
    np.testing.assert_array_equal(record.growth, [3 * 4096.0] * 2)


def test_vmap_and_scan_equal_a_loop():
    params, updates = trees(2, np.float32, {"a": {"w": (3, 4)}, "b": {"w": (5,)}})
    scales = jnp.array([0.5, 1.0, 2.0])

    def look(scale):
        scaled = jax.tree.map(lambda u: scale * u, updates)
        return jnp.stack(layer_motion(params, scaled, updates, learning_rate=0.1))

    loop = jnp.stack([*map(jax.jit(look), scales)])
    mapped = jax.jit(jax.vmap(look))(scales)
    _, scanned = jax.lax.scan(lambda c, scale: (c, look(scale)), 0, scales)
    np.testing.assert_allclose(mapped, loop, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(scanned, loop, rtol=2e-6, atol=1e-6)


def test_sharded_on_eight_devices_equals_unsharded():
    shapes = {"up": {"kernel": (64, 16)}, "down": {"kernel": (16, 64)}}
    params, updates, grads, start = trees(4, np.float32, shapes)
    mesh = jax.make_mesh((8,), ("x",), (jax.sharding.AxisType.Auto,))

    def place(tree):
        return {
            "up": jax.device_put(tree["up"], NamedSharding(mesh, P("x", None))),
            "down": jax.device_put(tree["down"], NamedSharding(mesh, P(None, "x"))),
        }

    look = jax.jit(lambda p, u, g, s: layer_motion(p, u, g, start=s, learning_rate=0.1))
    sharded = look(*map(place, (params, updates, grads, start)))
    for name, a, b in zip(
        Motion._fields, sharded, look(params, updates, grads, start), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6, err_msg=name)


def test_one_layer_that_is_not_finite_leaves_the_others_alone():
    params = {"good": jnp.ones(2), "bad": jnp.array([jnp.nan, 1.0])}
    norms = layer_motion(params).weight_norm
    np.testing.assert_allclose(norms, [np.nan, np.sqrt(2), np.nan])


def test_layers_that_match_nothing_or_have_bad_names_are_refused():
    params = {"blocks": {"0": {"kernel": jnp.ones(2)}}}
    with pytest.raises(
        ValueError, match=r"'layer_.*matches no parameter path.*blocks/0"
    ):
        layers_of(params, r"layer_\d+")
    with pytest.raises(ValueError, match="is not a regex"):
        layers_of(params, "(")
    with pytest.raises(ValueError, match="may not be called 'all'"):
        layers_of({"all": {"kernel": jnp.ones(2)}})
    assert pool(jnp.zeros((0, 3)), layers_of({})).shape == (1, 3)
