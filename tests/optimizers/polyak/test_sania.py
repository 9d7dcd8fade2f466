"""SANIA: its metrics, invariance to the scale of features, and Newton's step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gnomon import optimizers
from gnomon_contract import POLYAK, Row, Verified
from gnomon_contract.layers import ascending

VERIFIED = {
    "sania": Verified("A04", "NumPy", 1e-10),
    "scale_by_adagrad_sqr": Verified("A04", "NumPy", 1e-10),
    "scale_by_adam_sqr": Verified("A04", "NumPy", 1e-10),
    "scale_by_hutchinson": Verified("A04"),
    "scale_by_newton": Verified("A04"),
}


def sania_adam(*, b2, eps, max_learning_rate):
    metric = optimizers.scale_by_adam_sqr(b2, eps)
    return optimizers.sania(metric, max_learning_rate=max_learning_rate)


def sania_hutchinson(*, b2, eps, max_learning_rate):
    metric = optimizers.scale_by_hutchinson(b2, eps)
    return optimizers.sania(metric, max_learning_rate=max_learning_rate)


ROWS = (
    Row(
        "sania",
        sania_adam,
        {"b2": 0.9, "eps": 1.0, "max_learning_rate": 1.0},
        **POLYAK,
        covers=("sania",),
    ),
    Row(
        "sania_hutchinson",
        sania_hutchinson,
        {"b2": 0.9, "eps": 0.1, "max_learning_rate": 0.5},
        reads=("value", "obj_fn"),
        rate="max_learning_rate",
    ),
)
GIVEN = {"sania": dict(preconditioner=optax.scale_by_rms())}
LAYERS = {
    "sania": lambda i: optimizers.sania(ascending(i)),
    "scale_by_adagrad_sqr": lambda: optimizers.sania(
        optimizers.scale_by_adagrad_sqr(1.0)
    ),
    "scale_by_adam_sqr": lambda: optimizers.sania(
        optimizers.scale_by_adam_sqr(0.9, 1.0)
    ),
    "scale_by_hutchinson": lambda: optimizers.sania(
        optimizers.scale_by_hutchinson(0.9, 1.0)
    ),
    "scale_by_newton": lambda: optimizers.sania(
        optimizers.scale_by_newton(1.0, steps=3)
    ),
}


def oracle(kind, eps, b2=0.999, root=False, f_min=0.0, cap=1.0):
    """SANIA in NumPy; ``root`` takes the square root of the floored metric."""

    def path(weights, loss):
        w, total = weights.copy(), np.zeros_like(weights)
        for step in range(1000):
            value, g = loss(w, step)
            if kind == "adagrad":
                total = total + g**2
                metric = np.maximum(eps, total)
            else:
                total = b2 * total + (1 - b2) * g**2
                metric = np.maximum(eps, total / (1 - b2 ** (step + 1)))
            s = g / (np.sqrt(metric) if root else metric)
            twice, n = 2 * (value - f_min), s @ g
            lam = 1.0 if twice > n else 1 - np.sqrt(1 - twice / n)
            lam = min(lam, cap)
            w = w - lam * s
            yield w, lam

    return path


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (
            optimizers.sania(optimizers.scale_by_adagrad_sqr()),
            oracle("adagrad", 0.1),
        ),
        (
            optimizers.sania(optimizers.scale_by_adam_sqr(0.9), f_min=0.04),
            oracle("adam", 0.1, 0.9, f_min=0.04),
        ),
        (
            optimizers.sania(optimizers.scale_by_adam_sqr(), max_learning_rate=0.3),
            oracle("adam", 0.1, cap=0.3),
        ),
        (
            optimizers.sania(optax.scale_by_rss(0.0, 0.0)),
            oracle("adagrad", 0.0, root=True),
        ),
    ],
    ids=["adagrad_sqr", "adam_sqr", "capped", "adagrad_by_optax"],
)
def test_equals_a_numpy_oracle(follow, optimizer, expected):
    with jax.numpy_dtype_promotion("standard"):  # for optax's metric
        follow(optimizer, expected)


FEATURES = np.random.default_rng(0).normal(size=(20, 4))
LABELS = np.sign(FEATURES @ np.array([1.0, -1.0, 0.5, 0.0]) + 0.3)


def losses(optimizer, scale, steps=8):
    """Logistic losses over some steps, with the features multiplied by ``scale``."""
    features = jnp.asarray(FEATURES) * jnp.broadcast_to(scale, FEATURES.shape)

    def loss(w):
        return jnp.mean(jax.nn.softplus(-jnp.asarray(LABELS) * (features @ w)))

    def step(carry, _):
        w, state = carry
        value, grad = jax.value_and_grad(loss)(w)
        updates, state = optimizer.update(grad, state, w, value=value)
        w = optax.apply_updates(w, updates)
        return (w, state), (value, w * scale)

    w = jnp.zeros(4)
    return jax.lax.scan(step, (w, optimizer.init(w)), length=steps)[1]


INVARIANT = {
    name: jax.jit(lambda scale, metric=metric: losses(optimizers.sania(metric), scale))
    for name, metric in {
        "adagrad": optimizers.scale_by_adagrad_sqr(eps=0.0),
        "adam": optimizers.scale_by_adam_sqr(0.99, eps=0.0),
    }.items()
}
scales = hnp.arrays(np.float64, 4, elements=st.floats(-4, 4)).map(np.exp)


@given(scale=scales)
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("name", INVARIANT)
def test_squares_make_training_invariant_to_the_scale_of_features(name, scale):
    """Features times V: the same losses, at the old parameters times 1/V."""
    with jax.enable_x64(True):
        run = INVARIANT[name]
        for plain, scaled in zip(
            run(jnp.ones(4)), run(jnp.asarray(scale)), strict=True
        ):
            np.testing.assert_allclose(scaled, plain, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "preconditioner",
    [
        optax.scale_by_rss(0.0, 0.0),
        optax.scale_by_rms(0.99, eps=0.0, bias_correction=True),
        optax.identity(),
        optimizers.scale_by_adagrad_sqr(eps=0.1),
    ],
    ids=["adagrad_root", "adam_root", "identity", "floor"],
)
def test_roots_and_floors_are_not_invariant(x64, preconditioner):
    optimizer = optimizers.sania(preconditioner)
    scale = jnp.exp(jnp.array([-2.0, -1.0, 1.0, 2.0]))
    with jax.numpy_dtype_promotion("standard"):
        apart = losses(optimizer, scale)[0] - losses(optimizer, jnp.ones(4))[0]
    assert abs(apart).max() > 0.01


@given(
    grad=hnp.arrays(np.float32, 5, elements=st.floats(-1e3, 1e3, width=32)),
    gap=st.floats(2**-20, 2**20, width=32),
)
@example(grad=np.full(5, 2.0**-52, np.float32), gap=1.0)
@settings(max_examples=100, deadline=None)
def test_step_size_is_in_the_unit_interval_and_ends_at_f_min(grad, gap):
    """0 < lambda <= 1, and below 1 the model f - lambda N + lambda^2 N / 2 is f*."""
    grad = jnp.asarray(grad)
    optimizer = optimizers.sania(optax.scale(0.5), f_min=1.0)
    updates, state = optimizer.update(grad, optimizer.init(grad), value=1.0 + gap)
    n = 0.5 * np.sum(np.square(np.asarray(grad, np.float64)))
    lam = np.float64(state.step_size)
    if n == 0:
        assert lam == 0
        np.testing.assert_array_equal(updates, 0.0)
    # Squares that are no normal numbers may be taken for zero.
    if n < 8 * np.finfo(np.float32).tiny:
        assert 0 <= lam <= 1
        return
    assert 0 < lam <= 1
    if lam < 0.99:
        drop = lam * n - lam**2 * n / 2
        # 1 + gap is rounded to float32.
        np.testing.assert_allclose(drop, np.float32(1.0 + gap) - 1.0, rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_never_uphill(scale):
    """Neither below f_min nor along a direction that climbs."""
    w = jnp.array([1.0, 2.0])

    @jax.jit  # traced, or the wrong sign would be refused
    def update(scale):
        optimizer = optimizers.sania(optax.scale(scale), f_min=2.0)
        return optimizer.update(w, optimizer.init(w), value=2.0 - scale)

    updates, state = update(scale)
    np.testing.assert_array_equal(updates, 0.0)
    assert state.step_size == 0


HESSIAN = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, -1.0], [0.5, -1.0, 2.0]])


def quadratic(tree):
    w = jnp.append(tree["kernel"], tree["bias"])
    return 0.5 * w @ jnp.asarray(HESSIAN, w.dtype) @ w


@pytest.fixture
def tree():
    return {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array(3.0)}


@pytest.mark.parametrize("passed", ["obj_fn", "value_fn", "grad_fn"])
def test_on_a_quadratic_in_its_own_metric_it_is_newtons_step(x64, tree, passed):
    """2 f is the squared norm of the gradient in A^-1, so lambda is 1."""
    optimizer = optimizers.sania(optimizers.scale_by_newton(tolerance=1e-14))
    value, grads = jax.value_and_grad(quadratic)(tree)
    function = jax.grad(quadratic) if passed == "grad_fn" else quadratic
    updates, state = optimizer.update(
        grads, optimizer.init(tree), tree, value=value, **{passed: function}
    )
    np.testing.assert_allclose(state.step_size, 1.0, atol=1e-6)
    landed = optax.apply_updates(tree, updates)
    assert quadratic(landed) < 1e-12 * value


def test_newton_solves_the_damped_system(x64):
    """Against a dense solve, on a loss whose Hessian is not constant."""
    features = jnp.asarray(FEATURES)

    def loss(w):
        return jnp.sum(jax.nn.softplus(features @ w))

    w = jnp.array([0.3, -1.0, 2.0, 0.0])
    grad = jax.grad(loss)(w)
    newton = optimizers.scale_by_newton(damping=0.7, tolerance=1e-12)
    got, _ = newton.update(grad, newton.init(w), w, obj_fn=loss)
    damped = jax.hessian(loss)(w) + 0.7 * jnp.eye(4)
    np.testing.assert_allclose(got, jnp.linalg.solve(damped, grad), rtol=1e-9)


def test_newton_keeps_a_direction_where_the_hessian_is_not_definite(x64):
    """It stops before the first direction of no positive curvature: at the gradient if
    that is the first, else at the step so far, here the best along the gradient."""
    newton = optimizers.scale_by_newton()

    def direction(loss, w):
        grad = jax.grad(loss)(w)
        return grad, newton.update(grad, newton.init(w), w, obj_fn=loss)[0]

    def saddle(w):
        return w[0] ** 2 - w[1] ** 2

    grad, got = direction(saddle, jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(got, grad)
    grad, got = direction(saddle, jnp.array([2.0, 1.0]))
    # <g, g> / <g, H g> = 20 / 24
    np.testing.assert_allclose(got, grad * 20 / 24, rtol=1e-12)
    grad, got = direction(jnp.sum, jnp.array([2.0, 1.0]))
    np.testing.assert_array_equal(got, grad)
    _, got = direction(lambda w: 0.0 * jnp.sum(w), jnp.array([2.0, 1.0]))
    np.testing.assert_array_equal(got, 0.0)


def test_newton_works_on_sharded_leaves():
    """Its products and norms reduce over devices; the direction lies where w lies."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    key = jax.random.key(0)
    w = jax.random.normal(key, (8, 4))
    curvature = 1 + jax.random.uniform(key, (8, 4))

    def loss(w):
        return jnp.sum(curvature * w**2) + jnp.sum(w) ** 2

    newton = optimizers.scale_by_newton()

    @jax.jit
    def direction(w):
        return newton.update(jax.grad(loss)(w), newton.init(w), w, obj_fn=loss)[0]

    sharding = NamedSharding(mesh, PartitionSpec("data", "model"))
    got = direction(jax.device_put(w, sharding))
    assert got.sharding.is_equivalent_to(sharding, got.ndim)
    np.testing.assert_allclose(got, direction(w), rtol=1e-5, atol=1e-6)


def test_hutchinson_is_exact_for_a_diagonal_hessian(x64):
    """Signs square to one, so every sample is the diagonal; its absolute value is the
    metric, and the floor applies."""
    curvature = jnp.array([-2.0, 0.01, 5.0])
    w = jnp.array([1.0, 2.0, 3.0])

    def loss(w):
        return 0.5 * jnp.sum(curvature * w**2)

    hutchinson = optimizers.scale_by_hutchinson(0.9, eps=0.1)
    state = hutchinson.init(w)
    for _ in range(3):
        got, state = hutchinson.update(w, state, w, obj_fn=loss)
        np.testing.assert_allclose(got, w / jnp.array([2.0, 0.1, 5.0]), rtol=1e-12)


def test_hutchinson_averages_to_the_diagonal(x64, tree):
    """Over 2000 steps of fresh signs, within four standard errors; the seed matters."""
    steps = 2000

    def average(seed):
        # The plain mean: b2 close to 1, with its start corrected.
        hutchinson = optimizers.scale_by_hutchinson(1 - 1e-9, eps=0.0, seed=seed)

        def step(state, _):
            return hutchinson.update(tree, state, tree, obj_fn=quadratic)[1], None

        state, _ = jax.lax.scan(step, hutchinson.init(tree), length=steps)
        mean = jax.tree.map(lambda d: d / (steps * 1e-9), state.diagonal)
        return jnp.append(mean["kernel"], mean["bias"])

    first, second = jax.jit(jax.vmap(average))(jnp.arange(2))
    off_diagonal = HESSIAN - np.diag(np.diag(HESSIAN))
    errors = np.sqrt(np.sum(off_diagonal**2, axis=1) / steps)
    for mean in (first, second):
        assert (abs(mean - np.diag(HESSIAN)) < 4 * errors).all()
    assert (first != second).any()


def test_bfloat16_weights_keep_a_float32_metric():
    w = jnp.full((4,), 0.5, jnp.bfloat16)
    optimizer = optimizers.sania(optimizers.scale_by_adam_sqr(0.999, eps=0.0))
    state = optimizer.init(w)
    for _ in range(3):
        updates, state = optimizer.update(w, state, w, value=1.0)
    assert updates.dtype == jnp.bfloat16
    # At b2 = 0.999 a bfloat16 average would not move from its first value.
    np.testing.assert_allclose(
        state.preconditioner.diagonal, 0.25 * (1 - 0.999**3), rtol=1e-4
    )


def test_refusals_name_the_argument(tree):
    optimizer = optimizers.sania(optax.identity())
    with pytest.raises(ValueError, match=r"sania needs .* `value`"):
        optimizer.update(tree, optimizer.init(tree), tree)
    with pytest.raises(ValueError, match="f_min must be a scalar"):
        optimizers.sania(optax.identity(), f_min=jnp.ones(2))
    for make in (optimizers.scale_by_hutchinson, optimizers.scale_by_newton):
        preconditioner = make()
        state = preconditioner.init(tree)
        with pytest.raises(ValueError, match=f"{make.__name__} needs .*obj_fn"):
            preconditioner.update(tree, state, tree, value=1.0)
        with pytest.raises(ValueError, match=f"{make.__name__} needs .*parameters"):
            preconditioner.update(tree, state, obj_fn=quadratic)
