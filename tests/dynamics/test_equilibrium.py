"""Weight decay holds scale-invariant weights where the formulas say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.dynamics import equilibrium, equilibrium_angle, layer_motion
from gnomon.dynamics.equilibrium import RULES
from gnomon.experiments.configs.optimizers import OPTIMIZERS
from gnomon.experiments.trial import probes
from gnomon.optimizers import adabelief, adam_atan2, balance, observed

RATE, DECAY, SIZE, STEPS = 0.05, 0.1, 256, 3000


def sgd(momentum):
    decay = optax.add_decayed_weights(DECAY)
    return optax.chain(decay, optax.sgd(RATE, momentum=momentum))


@pytest.mark.parametrize(
    ("optimizer", "momentum", "adaptive", "angle"),
    [
        (sgd(0.0), 0.0, False, 0.1),  # sqrt(2 lr wd)
        (sgd(0.5), 0.5, False, 0.1 / np.sqrt(1.5)),
        (
            optax.adamw(RATE, b1=0.5, b2=0.99, weight_decay=DECAY),
            *(0.5, True, 0.1 / np.sqrt(3)),
        ),
    ],
    ids=["sgd", "momentum", "adamw"],
)
def test_angle_and_norm_settle_where_predicted(optimizer, momentum, adaptive, angle):
    """Noise across the weights that shrinks as they grow, as behind a normalization."""

    def step(carry, key):
        w, state = carry
        noise = jax.random.normal(key, w.shape)
        grads = (noise - w * jnp.vdot(w, noise) / jnp.vdot(w, w)) / jnp.linalg.norm(w)
        updates, state = optimizer.update(grads, state, w)
        record = layer_motion(w, updates, grads)
        seen = equilibrium(record, RATE, DECAY, momentum, adaptive=adaptive)
        # The weights' own name for it: the last row is the whole model.
        return (w + updates, state), jax.tree.map(lambda x: x[-1], (record, seen))

    with jax.numpy_dtype_promotion("standard"):  # optax's bias correction
        w = jnp.linspace(-1.0, 1.0, SIZE)
        start = (w, optimizer.init(w))
        keys = jax.random.split(jax.random.key(0), STEPS)
        _, (record, seen) = jax.jit(lambda s, k: jax.lax.scan(step, s, k))(start, keys)
    late = slice(STEPS // 2, None)
    np.testing.assert_allclose(seen.angle, angle, rtol=1e-5)
    np.testing.assert_allclose(record.angle[late].mean(), angle, rtol=0.03)
    np.testing.assert_allclose(seen.angle_ratio[late].mean(), 1.0, rtol=0.03)
    np.testing.assert_allclose(seen.norm_ratio[late].mean(), 1.0, rtol=0.03)
    # The prediction means something before it comes true: the start is elsewhere.
    assert abs(seen.norm_ratio[0] - 1) > 0.2


def test_adams_division_pushes_outward_and_the_push_undoes_decay():
    """Of a gradient across the weights, divided by its size, a part is along them."""
    size = jnp.where(jnp.arange(SIZE) % 2, 1.0, 0.1)  # of the noise; its square bends
    adamw = optax.adamw(RATE, b1=0.5, b2=0.99, weight_decay=DECAY)
    divide = optax.scale_by_adam(b1=0.0, b2=0.99)

    def step(carry, key):
        w, state, watched = carry
        at = w / jnp.linalg.norm(w)
        slope = jnp.square(size) * at + size * jax.random.normal(key, w.shape)
        grads = (slope - at * jnp.vdot(at, slope)) / jnp.linalg.norm(w)
        updates, state = adamw.update(grads, state, w)
        divided, watched = divide.update(grads, watched, w)
        push = -jnp.vdot(w, divided) / jnp.vdot(w, w)
        angle = layer_motion(w, updates, grads).angle[-1]
        return (w + updates, state, watched), (angle, push)

    with jax.numpy_dtype_promotion("standard"):  # optax's bias correction
        w = jnp.linspace(-1.0, 1.0, SIZE)
        start = (w, adamw.init(w), divide.init(w))
        keys = jax.random.split(jax.random.key(0), STEPS)
        _, late = jax.jit(lambda s, k: jax.lax.scan(step, s, k))(start, keys)
    angle, push = (x[STEPS // 2 :].mean() for x in late)
    plain, left = (
        equilibrium_angle(RATE, decay, 0.5, adaptive=True)
        for decay in (DECAY, DECAY - push)
    )
    assert angle / plain < 0.8
    np.testing.assert_allclose(angle, left, rtol=0.03)


@pytest.mark.parametrize(
    ("optimizer", "momentum"),
    [
        (adabelief(RATE, b1=0.5, b2=0.99, weight_decay=DECAY), 0.5),
        (adam_atan2(RATE, weight_decay=RATE * DECAY, decay="independent"), 0.9),
    ],
    ids=["adabelief", "adam_atan2"],
)
def test_what_optimizers_say_of_themselves_comes_true(optimizer, momentum):
    """The angle at equilibrium is the one that follows from their own words."""

    def step(carry, key):
        w, state = carry
        noise = jax.random.normal(key, w.shape)
        grads = (noise - w * jnp.vdot(w, noise) / jnp.vdot(w, w)) / jnp.linalg.norm(w)
        with observed() as seen:
            updates, state = optimizer.update(grads, state, w)
        said = balance(seen, state)
        record = layer_motion(w, updates, grads)
        found = probes._equilibrium(record, {}, jnp.nan, said)
        angles = record.angle[-1], found["equilibrium_angle"], found["norm_ratio"][-1]
        return (w + updates, state), angles

    w = jnp.linspace(-1.0, 1.0, SIZE)
    keys = jax.random.split(jax.random.key(0), STEPS)
    run = jax.jit(lambda s, k: jax.lax.scan(step, s, k)[1])
    angle, predicted, ratio = (
        x[STEPS // 2 :] for x in run((w, optimizer.init(w)), keys)
    )
    wanted = equilibrium_angle(RATE, DECAY, momentum, adaptive=True)
    np.testing.assert_allclose(predicted, wanted, rtol=1e-6)
    np.testing.assert_allclose(angle.mean(), predicted[0], rtol=0.01)
    np.testing.assert_allclose(ratio.mean(), 1.0, rtol=0.03)


def test_without_decay_there_is_no_equilibrium():
    record = layer_motion({"w": jnp.ones(3)}, {"w": jnp.array([0.1, -0.1, 0.0])})
    assert all(jnp.isnan(x).all() for x in equilibrium(record, 0.1, 0.0))


LINES = {
    **OPTIMIZERS,
    "adam": dict(name="optax.adam", learning_rate=1e-3),
    "lamb": dict(name="optax.lamb", learning_rate=1e-3, weight_decay=0.1),
    "nadamw": dict(name="optax.nadamw", learning_rate=1e-3, weight_decay=0.1),
    "nesterov": dict(name="optax.adamw", learning_rate=1e-3, nesterov=True),
    "masked": dict(name="optax.adamw", learning_rate=1e-3, mask=lambda tree: tree),
    "adamax": dict(name="optax.adamaxw", learning_rate=1e-3, weight_decay=0.1),
}


@pytest.mark.parametrize("line", LINES)
def test_an_equilibrium_is_given_only_for_methods_whose_formula_is_known(line):
    """AdamW's angle is AdamW's alone, whatever keywords another method shares."""
    motion = layer_motion({"w": jnp.ones(3)}, {"w": jnp.array([0.1, -0.1, 0.0])})
    keywords = probes.keywords(LINES[line])
    found = probes._equilibrium(motion, keywords, jnp.float32(1e-3))
    if line != "adamw":
        assert found == {}
        return
    wanted = equilibrium_angle(1e-3, 0.01, 0.9, adaptive=True)
    np.testing.assert_allclose(found["equilibrium_angle"], wanted, rtol=1e-6)
    assert set(RULES) == {optax.adamw}  # the formulas that the tests above check


@pytest.mark.parametrize("line", sorted(set(LINES) - {"adam", "adamw", "masked"}))
def test_adams_preconditioner_is_looked_for_in_adam_alone(line):
    look = probes.Look(
        None, None, None, jnp.float32(1e-3), probes.keywords(LINES[line])
    )
    assert probes.preconditioned_sharpness(look) == {}
