"""ALR: descent toward every solution, parity with optax, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gnomon import optimizers
from gnomon_contract import POLYAK, Row, Verified

ROWS = (
    Row(
        "alr_hb",
        optimizers.alr_hb,
        {"f_min": 0.0, "momentum": 0.9},
        **{**POLYAK, "rate": "f_min"},
    ),
    Row(
        "alr_mag",
        optimizers.alr_mag,
        {"f_min": 0.0, "momentum": 0.9},
        **{**POLYAK, "rate": "f_min"},
    ),
    Row(
        "alr_shb",
        optimizers.alr_shb,
        {"max_learning_rate": 0.1, "momentum": 0.9, "c": 1.0},
        **POLYAK,
    ),
    Row(
        "alr_smag",
        optimizers.alr_smag,
        {"max_learning_rate": 0.1, "momentum": 0.9, "c": 0.5},
        **POLYAK,
    ),
)
LAYERS = {
    "alr_hb": lambda: optimizers.alr_hb(momentum=0.5),
    "alr_mag": lambda: optimizers.alr_mag(momentum=0.5),
    "alr_shb": lambda: optimizers.alr_shb(0.1, momentum=0.5),
    "alr_smag": lambda: optimizers.alr_smag(0.1, momentum=0.5),
}
VERIFIED = {
    "alr_hb": Verified("A03", "NumPy", 1e-10),
    "alr_mag": Verified("A03", "NumPy", 1e-10),
    "alr_shb": Verified("A03", "NumPy", 1e-10),
    "alr_smag": Verified("A03", "NumPy", 1e-10),
}


def sum_oracle(beta, c=1.0, cap=np.inf, f_min=0.0):
    """ALR-(S)MAG in NumPy."""

    def path(weights, loss):
        w, d = weights.copy(), 0.0
        for step in range(1000):
            value, g = loss(w, step)
            d = beta * d + g
            eta = min(max(value - f_min, 0) / (c * (d @ d)), cap)
            w = w - eta * d
            yield w, eta

    return path


def ball_oracle(beta, c=1.0, cap=np.inf, f_min=0.0, gain=1.0):
    """ALR-(S)HB in NumPy, from the last two points."""

    def path(weights, loss):
        w, last = weights.copy(), weights.copy()
        for step in range(1000):
            value, g = loss(w, step)
            bound = gain * (value - f_min) + beta * (g @ (w - last))
            eta = min(max(bound, 0) / (c * (g @ g)), cap)
            w, last = w - eta * g + beta * (w - last), w
            yield w, eta

    return path


@pytest.mark.parametrize(
    ("optimizer", "oracle"),
    [
        (optimizers.alr_mag(0.04), sum_oracle(0.9, f_min=0.04)),
        (optimizers.alr_smag(0.1, c=0.3), sum_oracle(0.9, 0.3, 0.1)),
        (optimizers.alr_hb(0.04, momentum=0.5), ball_oracle(0.5, f_min=0.04)),
        (
            optimizers.alr_hb(0.04, momentum=0.5, quadratic=True),
            ball_oracle(0.5, f_min=0.04, gain=2.0),
        ),
        (optimizers.alr_shb(0.1, c=1.5), ball_oracle(0.9, 1.5, 0.1)),
    ],
    ids=["mag", "smag", "hb", "hb_quadratic", "shb"],
)
def test_equals_a_numpy_oracle(follow, optimizer, oracle):
    follow(optimizer, oracle)


CURVATURE = np.array([1.0, 10.0, 100.0])


def valley(w):
    return 0.5 * jnp.sum(jnp.asarray(CURVATURE, w.dtype) * w**2)


def minimize(optimizer, w, steps, loss=valley):
    """The points and the state, stacked over the steps."""

    def step(carry, _):
        w, state = carry
        value, grad = jax.value_and_grad(loss)(w)
        updates, state = optimizer.update(grad, state, w, value=value)
        w = optax.apply_updates(w, updates)
        return (w, state), (w, value)

    carry = (w, optimizer.init(w))
    return jax.jit(lambda: jax.lax.scan(step, carry, length=steps))()[1]


def test_heavy_ball_is_far_less_sensitive_to_momentum(x64):
    """The loss after 200 steps from (1, 1, 1) on diag(1, 10, 100)."""
    final = {
        (make.__name__, momentum): valley(
            minimize(make(momentum=momentum), jnp.ones(3), 200)[0][-1]
        )
        for make in (optimizers.alr_mag, optimizers.alr_hb)
        for momentum in (0.5, 0.9, 0.95)
    }
    for momentum in (0.5, 0.9, 0.95):
        assert final["alr_hb", momentum] < 1e-3 * final["alr_mag", momentum]
    # At 0.5 and for heavy ball the last digits are rounding's.
    at = [final["alr_mag", momentum] for momentum in (0.9, 0.95)]
    np.testing.assert_allclose(at, [1.786e-5, 1.326e-2], rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mag_is_a_chain_of_optax_bit_for_bit(x64, dtype):
    chain = optax.chain(
        optax.trace(0.9),
        optax.scale_by_polyak(max_learning_rate=jnp.inf),
        optax.scale(-1.0),
    )
    w = jnp.array([1.0, -0.7, 0.3], dtype)
    with jax.numpy_dtype_promotion("standard"):
        expected, _ = minimize(chain, w, 100)
    got, _ = minimize(optimizers.alr_mag(momentum=0.9), w, 100)
    np.testing.assert_array_equal(got, expected)


small = st.floats(-3, 3).map(lambda x: round(x, 3))


@jax.jit
def fejer(factor, start, solution, momentum):
    """Squared distances to a solution, and the promised gains, over 15 steps of the
    losses |r|^2/2 and sum(sqrt(1 + r^2) - 1) of the residual r."""

    def run(loss):
        optimizer = optimizers.alr_mag(momentum=momentum)

        def step(carry, _):
            w, state = carry
            value, grad = jax.value_and_grad(loss)(w)
            updates, state = optimizer.update(grad, state, w, value=value)
            new = optax.apply_updates(w, updates)
            # (f - f*)^2 / |d|^2, as the step size is (f - f*) / |d|^2.
            return (new, state), (
                jnp.sum((new - solution) ** 2),
                state.step_size * value,
            )

        carry = (start, optimizer.init(start))
        distances, gains = jax.lax.scan(step, carry, length=15)[1]
        first = jnp.sum((start - solution) ** 2)
        return jnp.concatenate([first[None], distances]), gains

    def residual(w):
        return factor @ (w - solution)

    return (
        run(lambda w: 0.5 * jnp.sum(residual(w) ** 2)),
        run(lambda w: jnp.sum(jnp.sqrt(1 + residual(w) ** 2) - 1)),
    )


@given(
    factor=hnp.arrays(np.float64, (4, 4), elements=small),
    start=hnp.arrays(np.float64, 4, elements=small),
    solution=hnp.arrays(np.float64, 4, elements=small),
    momentum=st.floats(0, 0.99),
)
@settings(max_examples=60, deadline=None)
def test_mag_comes_closer_to_every_solution(factor, start, solution, momentum):
    """Fejér: |w' - s|^2 <= |w - s|^2 - (f - f*)^2/|d|^2 for convex losses."""
    with jax.enable_x64(True):
        arrays = map(jnp.asarray, (factor, start, solution, momentum))
        for distances, gains in fejer(*arrays):
            slack = 1e-12 * (1 + distances[0])
            assert (distances[1:] <= distances[:-1] - gains + slack).all()


@jax.jit
def scaled_run(start, scale, momentum):
    optimizer = optimizers.alr_smag(momentum=momentum, c=0.75)
    return minimize(optimizer, start, 30, lambda w: scale * valley(w))[0]


@given(
    start=hnp.arrays(np.float32, 3, elements=st.floats(-8, 8, width=16)),
    power=st.integers(-16, 16),
    momentum=st.floats(0, 0.9375, width=16),
)
@settings(max_examples=50, deadline=None)
def test_scaling_the_loss_changes_nothing_without_a_cap(start, power, momentum):
    """Bit for bit, where the scale is a power of two and so rounds nothing."""
    start, momentum = jnp.asarray(start), jnp.float32(momentum)
    # Below the range of float32 the guards of the step size take over.
    start = jnp.where(abs(start) < 1e-2, 0.5, start)
    plain = scaled_run(start, jnp.float32(1.0), momentum)
    scaled = scaled_run(start, jnp.float32(2.0**power), momentum)
    np.testing.assert_array_equal(scaled, plain)


def test_a_cap_ends_the_invariance():
    capped = optimizers.alr_smag(0.005)
    plain, _ = minimize(capped, jnp.ones(3), 5)
    scaled, _ = minimize(capped, jnp.ones(3), 5, lambda w: 0.1 * valley(w))
    assert abs(plain - scaled).max() > 1e-2


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.alr_mag(momentum=0.0),
        lambda: optimizers.alr_hb(momentum=0.0),
        lambda: optimizers.alr_smag(momentum=0.0),
        lambda: optimizers.alr_shb(momentum=0.0),
        lambda: optimizers.momsps(np.inf, momentum=0.0),
        lambda: optimizers.alig(np.inf, momentum=0.0, eps=0.0),
        lambda: optimizers.momo(np.inf, b1=0.0),
    ],
    ids=["alr_mag", "alr_hb", "alr_smag", "alr_shb", "momsps", "alig", "momo"],
)
def test_without_momentum_all_are_sps(x64, make):
    expected, _ = minimize(optimizers.sps(c=1.0), jnp.array([1.0, -0.7, 0.3]), 8)
    got, _ = minimize(make(), jnp.array([1.0, -0.7, 0.3]), 8)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("make", [optimizers.alr_smag, optimizers.alr_shb])
def test_at_its_cap_it_is_momentum_sgd(x64, make):
    """A target that no step reaches leaves the cap: optax.sgd with momentum."""
    sgd = optax.with_extra_args_support(optax.sgd(0.003, momentum=0.9))
    expected, _ = minimize(sgd, jnp.ones(3), 30)
    got, _ = minimize(make(0.003, momentum=0.9, f_min=-1e9), jnp.ones(3), 30)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("make", [optimizers.alr_mag, optimizers.alr_smag])
def test_below_f_min_the_weights_rest(make):
    w = jnp.array([1.0, 2.0])
    optimizer = make(f_min=10.0)
    updates, state = optimizer.update(w, optimizer.init(w), value=3.0)
    np.testing.assert_array_equal(updates, 0.0)
    assert state.step_size == 0


@pytest.mark.parametrize("make", [optimizers.alr_hb, optimizers.alr_shb])
def test_below_f_min_only_momentum_moves_the_weights(make):
    w = jnp.array([1.0, 2.0])
    optimizer = make(momentum=0.5)
    state = optimizer.init(w)
    first, state = optimizer.update(w, state, value=3.0)
    second, state = optimizer.update(w, state, value=-3.0)
    np.testing.assert_array_equal(second, 0.5 * first)
    assert state.step_size == 0


@pytest.mark.parametrize(
    "make",
    [optimizers.alr_mag, optimizers.alr_hb, optimizers.alr_smag, optimizers.alr_shb],
)
def test_without_the_loss_it_names_itself(make):
    w = jnp.ones(2)
    optimizer = make()
    with pytest.raises(ValueError, match=f"{make.__name__} needs .* `value`"):
        optimizer.update(w, optimizer.init(w), w)
    with pytest.raises(ValueError, match="momentum must be a scalar"):
        make(momentum=w)
