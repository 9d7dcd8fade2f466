"""Parameters in bfloat16: what rounding loses, and what it does not at random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import make_trial, split
from gnomon.experiments.config.validation import validate
from gnomon.experiments.trial.precision import narrow
from gnomon.experiments.trial.program import make_program

pytestmark = pytest.mark.usefixtures("optax_promotion")
BATCH = {"tokens": np.arange(4 * 9, dtype=np.int32).reshape(4, 9) % 16}
STORED = dict(dtype="bfloat16", rounding="stochastic")


def program(tiny, **parameters):
    config = tiny(model__vocab=16, model__width=8, optimizer__learning_rate=1e-2)
    config |= dict(
        parameters=parameters,
        optimizer=dict(name="optax.sgd", learning_rate=1e-4, momentum=0.9),
        schedule=dict(name="gnomon.experiments.schedules.constant"),
    )
    static, traced = split(config)
    hypers = {name: jnp.asarray(value) for name, value in traced.items()}
    made = make_program(static)
    return made, made.init(jnp.uint32(0), hypers, BATCH), hypers


def moved(tiny, keys, **parameters):
    """How far the parameters move in a step, by the key of the trial."""
    made, state, hypers = program(tiny, **parameters)
    step = jax.vmap(
        lambda key: made.step(state._replace(key=key), BATCH, hypers).params
    )
    after = jax.jit(step)(jax.random.split(jax.random.key(1), keys))

    def distance(new, old):
        return np.mean(np.asarray(new, np.float64) - np.asarray(old, np.float64), 0)

    far = jax.tree.map(distance, after, state.params)
    return state, np.concatenate([np.ravel(x) for x in jax.tree.leaves(far)])


def test_small_updates_count_on_average(tiny):
    plain, wanted = moved(tiny, 1, dtype="", rounding="nearest")
    nearest, lost = moved(tiny, 1, dtype="bfloat16", rounding="nearest")
    stored, found = moved(tiny, 256, **STORED)
    for x, y, z in zip(
        *(jax.tree.leaves(s.params) for s in (plain, stored, nearest)), strict=True
    ):
        assert x.dtype == jnp.float32
        assert y.dtype == jnp.bfloat16
        np.testing.assert_array_equal(x.astype(jnp.bfloat16), y)  # initialized wide
        np.testing.assert_array_equal(y, z)
    assert {x.dtype for x in jax.tree.leaves(stored.opt_state) if x.ndim} == {
        jnp.dtype("float32")
    }

    def along(distance):
        return distance @ wanted / (wanted @ wanted)

    assert abs(along(lost)) < 0.1  # of updates this small, most are lost
    assert along(found) == pytest.approx(1, abs=0.1)


def test_rounding_is_to_a_neighbor_and_right_on_average():
    w = {"w": jnp.full((4096,), 1 - 2.0**-11)}
    found = narrow({"parameters": STORED}, w, jax.random.key(0))["w"]
    assert set(np.asarray(found, float)) == {1 - 2.0**-8, 1.0}
    # 1/8 of the way: of 4,096 draws the standard error of the mean is 2e-5.
    assert np.mean(np.asarray(found, float)) == pytest.approx(1 - 2.0**-11, abs=8e-5)
    config = {"parameters": STORED | dict(rounding="nearest")}
    assert set(np.asarray(narrow(config, w, jax.random.key(0))["w"], float)) == {1.0}


def test_what_is_no_precision_is_refused(tiny):
    validate(tiny(parameters__dtype="bfloat16", parameters__rounding="stochastic"))
    with pytest.raises(ConfigError, match="dtype='bfloat'; did you mean 'bfloat16'"):
        validate(tiny(parameters__dtype="bfloat"))
    with pytest.raises(ConfigError, match=r"needs config.parameters.dtype='bfloat16'"):
        validate(tiny(parameters__rounding="stochastic"))
    old = {key: value for key, value in tiny().items() if key != "parameters"}
    assert make_trial(old).id == make_trial(tiny()).id
