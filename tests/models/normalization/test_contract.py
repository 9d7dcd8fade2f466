"""Every normalization keeps the contract of `gnomon.models.normalization`.

Beside each norm's own tests stands its row, `CONTRACT`: its definition in NumPy and the
changes of the input that it does not see. A norm is its module and that file.
"""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.models import functional, normalization

FEATURES = 8


def row_of(path):
    spec = importlib.util.spec_from_file_location(f"norm_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CONTRACT


ROWS = [
    row_of(path)
    for path in sorted(pathlib.Path(__file__).parent.glob("test_*.py"))
    if path.name != pathlib.Path(__file__).name
]
every_norm = pytest.mark.parametrize("row", ROWS, ids=lambda row: row["norm"].__name__)


def test_every_public_norm_has_a_row():
    named = sorted(row["norm"].__name__ for row in ROWS)
    assert named == sorted(normalization.__all__)


@functools.cache
def net(norm):
    """`(apply, params, stats)` with values that are not the first ones, in float64."""
    model = functional(norm, features=FEATURES)
    trees = jax.device_get(model.init(jax.random.key(0)))
    rng = np.random.default_rng(0)
    params, stats = jax.tree.map(lambda x: x + rng.uniform(0.5, 1, x.shape), trees)
    return jax.jit(model.apply, static_argnames="train"), params, stats


def inputs(shape=(6, 5, FEATURES), seed=1):
    return np.random.default_rng(seed).normal(1.0, 2.0, shape)


def cast(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def slope(apply, weights, train):
    """Gradient of a weighted sum of the outputs by `(params, x)`."""

    def total(params, x, stats):
        y, _ = apply(params, stats, x, train=train)
        return jnp.sum(y * weights.astype(y.dtype))

    return jax.jit(jax.grad(total, argnums=(0, 1)))


@every_norm
@pytest.mark.parametrize("train", [True, False])
def test_values_and_gradients_are_those_of_the_definition(row, train, x64):
    apply, params, stats = net(row["norm"])
    x, weights = inputs(), inputs(seed=2)

    def definition(params, x):
        return row["definition"](x, train=train, **params, **stats)

    wide = cast((params, stats), jnp.float64)
    y, _ = apply(*wide, jnp.asarray(x), train=train)
    np.testing.assert_allclose(y, definition(params, x), rtol=1e-12, atol=1e-12)

    gradient = slope(apply, weights, train)
    found = gradient(wide[0], jnp.asarray(x), wide[1])
    rng = np.random.default_rng(3)
    for _ in range(3):
        ways = jax.tree.map(lambda z: rng.normal(size=z.shape), (params, x))

        def along(t, ways=ways):
            moved = jax.tree.map(lambda z, way: z + t * way, (params, x), ways)
            return np.sum(weights * definition(*moved))

        wanted = (along(1e-5) - along(-1e-5)) / 2e-5
        products = jax.tree.map(lambda g, way: np.sum(np.asarray(g) * way), found, ways)
        np.testing.assert_allclose(sum(jax.tree.leaves(products)), wanted, rtol=1e-7)

    narrow = cast((params, x, stats), jnp.float32)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        gradient(*narrow),
        found,
    )


@every_norm
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sums_are_float32_and_the_dtype_of_the_input_is_kept(row, dtype):
    """Along rows and along batches whose sum in half precision would stop growing."""
    model = functional(row["norm"], features=512)
    params, stats = model.init(jax.random.key(0))
    x = jnp.asarray(inputs((2048, 512)), dtype)
    y, after = jax.jit(model.apply, static_argnames="train")(
        params, stats, x, train=True
    )
    assert y.dtype == dtype
    assert {s.dtype for s in jax.tree.leaves(after)} <= {jnp.dtype("float32")}
    exact = row["definition"](np.asarray(x, np.float64), train=True, **params, **stats)
    rounding = float(jnp.finfo(dtype).eps) / 2
    np.testing.assert_allclose(
        np.asarray(y, np.float64), exact, rtol=rounding + 1e-5, atol=1e-5
    )


@every_norm
@pytest.mark.parametrize("train", [True, False])
def test_a_zero_input_is_finite_and_so_is_its_gradient(row, train):
    apply, *trees = net(row["norm"])
    params, stats = cast(trees, jnp.float32)
    x = jnp.zeros((3, FEATURES))
    y, after = apply(params, stats, x, train=train)
    grads = slope(apply, jnp.ones_like(x), train)(params, x, stats)
    for leaf in jax.tree.leaves((y, after, grads)):
        assert np.isfinite(leaf).all()


ROTATION, _ = np.linalg.qr(inputs((FEATURES, FEATURES)))
PER_ROW = np.linspace(1, 3, 30).reshape(6, 5, 1)
PER_FEATURE = np.linspace(1, 3, FEATURES)
CHANGES = {
    "row_scale": (lambda x: x * PER_ROW, lambda y: y),
    "row_shift": (lambda x: x + PER_ROW, lambda y: y),
    "feature_scale": (lambda x: x * PER_FEATURE, lambda y: y),
    "feature_shift": (lambda x: x + PER_FEATURE, lambda y: y),
    "rotation": (lambda x: x @ ROTATION, lambda y: y @ ROTATION),
}


@every_norm
def test_the_stated_invariances_hold_and_no_others(row):
    model = functional(row["norm"], features=FEATURES)
    params, stats = model.init(jax.random.key(0))
    apply = net(row["norm"])[0]

    def outputs(x):
        y, _ = apply(params, stats, jnp.asarray(x, jnp.float32), train=True)
        return np.asarray(y)

    x = inputs()
    plain = outputs(x)
    differences = {
        name: np.abs(outputs(change(x)) - follows(plain)).max()
        for name, (change, follows) in CHANGES.items()
    }
    seen = {name for name, difference in differences.items() if difference > 1e-2}
    hidden = {name for name, difference in differences.items() if difference < 1e-4}
    assert seen | hidden == CHANGES.keys(), differences
    assert hidden == set(row["invariances"])


@every_norm
def test_scanned_layers_and_batches_of_models_equal_a_loop(row):
    apply, *trees = net(row["norm"])
    trees = cast(trees, jnp.float32)
    layers = [
        jax.tree.map(functools.partial(jnp.add, 1.0 * i), trees) for i in range(3)
    ]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *layers)
    x = jnp.asarray(inputs(), jnp.float32)

    def step(x, layer):
        return apply(*layer, x, train=True)

    y, after = jax.jit(lambda x, layers: jax.lax.scan(step, x, layers))(x, stacked)
    batch, _ = jax.jit(jax.vmap(lambda *layer: apply(*layer, x, train=True)))(*stacked)
    wanted, wanted_stats = x, []
    for i, (params, stats) in enumerate(layers):
        alone, _ = apply(params, stats, x, train=True)
        np.testing.assert_allclose(batch[i], alone, atol=1e-5)
        wanted, stats = apply(params, stats, wanted, train=True)
        wanted_stats.append(stats)
        _, kept = apply(params, stats, x, train=False)
        jax.tree.map(np.testing.assert_array_equal, kept, stats)
    np.testing.assert_allclose(y, wanted, atol=1e-5)
    jax.tree.map(
        lambda a, *b: np.testing.assert_allclose(a, np.stack(b), rtol=1e-5),
        after,
        *wanted_stats,
    )
