"""What methods say of their own steps: from their states, and while they are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import optimizers
from gnomon.optimizers import diagnostics, observed
from gnomon.optimizers.mechanisms.diagnostics import meanings, tells

PARAMS = {"layers_0": {"kernel": jnp.array([[3.0, 1.0], [4.0, 2.0]])}}
# At right angles to the first unit, along the second.
ACROSS = {"layers_0": {"kernel": jnp.array([[4.0, 1.0], [-3.0, 2.0]])}}


def step(optimizer, grads=ACROSS, params=PARAMS, steps=1):
    """State and observations of the last of some steps."""
    optimizer = optax.with_extra_args_support(optimizer)
    state = optimizer.init(params)
    for _ in range(steps):
        with observed() as seen:
            extra = dict(value=0.5, grad=grads, obj_fn=lambda w: 0.5)
            updates, state = optimizer.update(grads, state, params, **extra)
        params = optax.apply_updates(params, updates)
    return state, seen


POLYAK = {
    "sps": lambda: optimizers.sps(c=0.5),
    "alig": lambda: optimizers.alig(0.1),
    "alr_hb": lambda: optimizers.alr_hb(),
    "alr_smag": lambda: optimizers.alr_smag(0.1),
    "momsps": lambda: optimizers.momsps(),
    "momo": lambda: optimizers.momo(),
    "sania": lambda: optimizers.sania(optimizers.scale_by_adagrad_sqr(1.0)),
}


@pytest.mark.parametrize("name", POLYAK)
def test_step_sizes_of_the_polyak_family(name):
    state, _ = step(POLYAK[name]())
    assert diagnostics(state)["step_size"] == state.step_size > 0


def test_chains_wrappers_and_masks_are_looked_through():
    sps = optimizers.sps(c=0.5)
    mask = {"layers_0": {"kernel": True}}
    inside = optax.chain(optax.clip(9.0), optax.masked(sps, mask))
    held = optimizers.lawn(inside, free_steps=0)
    state, _ = step(held)
    found = diagnostics(state)
    assert found.keys() == {"reference", "step_size"}
    np.testing.assert_allclose(found["reference"], np.sqrt(30), rtol=1e-6)
    two = diagnostics({"a": state, "b": sps.init(PARAMS)})
    assert two.keys() == {"reference", "a/inner/1/inner_state/step_size", "b/step_size"}
    assert diagnostics(optax.adam(0.1).init(PARAMS)) == {}


def test_a_name_means_one_thing():
    names = {"projected", "constrained", "reference", "radius", "step_size", "f_min"}
    assert names <= meanings().keys()
    with pytest.raises(ValueError, match="'radius' means 'mean of the norms"):
        tells("radius", "half of a diameter")
    assert meanings()["radius"] == "mean of the norms that layers are held at"


def test_what_is_told_is_a_number_in_every_lane():
    optimizer = optimizers.sps(c=0.5)

    @jax.jit
    @jax.vmap
    def told(value):
        state = optimizer.init(PARAMS)
        state = optimizer.update(ACROSS, state, PARAMS, value=value)[1]
        return diagnostics(state)

    found = told(jnp.array([0.5, 1.0]))["step_size"]
    np.testing.assert_allclose(found, [0.5 / 15, 1 / 15], rtol=1e-6)


@pytest.mark.parametrize(
    ("share", "delta"), [(0.0, 0.1), (1.0, 9.0)], ids=["one unit fails", "both pass"]
)
def test_the_projected_share(share, delta):
    """Units of a layer are projected all together; another layer counts by its units.

    A leaf without units is in no share.
    """
    across = jnp.array([[4.0], [-3.0]])
    params = {
        **PARAMS,
        "layers_1": {"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.ones(3)},
    }
    grads = {**ACROSS, "layers_1": {"kernel": across, "bias": jnp.ones(3)}}
    for optimizer in (
        optimizers.adamp(0.1, delta=delta),
        optimizers.sgdp(0.1, delta=delta),
        optimizers.project_radial(optax.trace(0.9), delta=delta),
    ):
        _, seen = step(optimizer, grads, params)
        np.testing.assert_allclose(seen["projected"], (2 * share + 1) / 3, rtol=1e-6)


def test_layers_of_a_stack_count_one_by_one():
    kernel = jnp.stack([PARAMS["layers_0"]["kernel"], jnp.array([[3.0, 4], [4, -3]])])
    grads = jnp.stack([kernel[0], jnp.array([[4.0, 3], [-3, 4]])])
    params, grads = ({"blocks": {"stacked": {"kernel": x}}} for x in (kernel, grads))
    assert step(optimizers.adamp(0.1), grads, params)[1]["projected"] == 0.5


def test_the_constrained_share():
    lawn = optimizers.lawn(optax.sgd(0.1), free_steps=2)
    shares = [step(lawn, steps=n)[1]["constrained"] for n in (1, 2, 3)]
    assert shares == [0, 0, 1]
    capped = optimizers.constrain(
        optax.sgd(0.1), optimizers.max_norm(3.0, view="unit")
    )  # norms 5 and 2.2
    assert step(capped)[1]["constrained"] == 0.5
    rescaling = optimizers.target_variance_rescaling(
        optax.sgd(0.0), target_std=0.1, every=2
    )
    assert [step(rescaling, steps=n)[1]["constrained"] for n in (1, 2)] == [0, 1]


def test_observations_belong_to_the_program():
    """They are the same under jit and vmap, and what cannot leave a branch is left."""
    optimizer = optimizers.adamp(0.1)

    def seen_by(optimizer, scale):
        with observed() as seen:
            grads = jax.tree.map(lambda g: scale * g, ACROSS)
            optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
        return seen

    lanes = jax.jit(jax.vmap(lambda s: seen_by(optimizer, s)))(jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(lanes["projected"], [0.0, 0.0])
    often = optax.MultiSteps(optimizer, 2).gradient_transformation()
    with jax.numpy_dtype_promotion("standard"):
        assert jax.jit(lambda s: seen_by(often, s))(1.0) == {}


def test_probes_of_signs_are_not_observed():
    with observed() as seen:
        optimizers.lawn(optimizers.adamp(0.1, delta=0.123), free_steps=1)
    assert seen == {}


def test_an_unobserved_step_is_the_same_program():
    optimizer = optimizers.adamp(0.1)

    def program():
        state = optimizer.init(PARAMS)
        return str(jax.make_jaxpr(lambda g: optimizer.update(g, state, PARAMS))(ACROSS))

    plain = program()
    with observed():
        program()
    assert program() == plain
