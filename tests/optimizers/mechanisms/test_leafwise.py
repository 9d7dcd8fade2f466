"""What comes with a rule for one leaf."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers.mechanisms.leafwise import WIDE, leafwise
from gnomon.parameters.units import Axes


class State(NamedTuple):
    count: jax.Array
    own: optax.Updates
    wide: optax.Updates


def recording(seen, **options):
    """A transform whose rule says what it was given."""

    def rule(h, g, w, own, wide, *further):
        seen.append((h, g, w, own, wide, *further))
        return h.size * g, own + h.size * g, wide + g

    numbers = {"[0, 1]": dict(size=options.pop("size", 0.5))}
    if "weight_decay" in options:
        numbers["[0, inf)"] = dict(weight_decay=options.pop("weight_decay"))
    return leafwise("recording", rule, State, (None, WIDE), numbers, **options)


PARAMS = {
    "half": {"kernel": jnp.ones((3, 2), jnp.bfloat16)},
    "full": {"bias": jnp.ones(2), "none": None},
}
STRUCTURE = jax.tree.structure(PARAMS)


def test_a_rule_sees_one_dtype_and_all_is_stored_in_its_own():
    seen = []
    transform = recording(seen)
    state = transform.init(PARAMS)
    assert state.own["half"]["kernel"].dtype == jnp.bfloat16
    assert state.wide["half"]["kernel"].dtype == jnp.float32
    wide_grads = jax.tree.map(lambda w: w.astype(jnp.float32), PARAMS)
    updates, new = transform.update(wide_grads, state, PARAMS)
    for h, *arrays in seen:
        assert {x.dtype for x in (*arrays, h.size, h.t)} == {jnp.dtype("float32")}
    layout = jax.tree.map(lambda x: (x.shape, x.dtype), (PARAMS, state))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), (updates, new)) == layout


def test_a_rule_is_told_of_step_axes_schedules_and_decay():
    seen = []
    transform = recording(
        seen,
        size=optax.linear_schedule(0.0, 1.0, 4),
        weight_decay=0.1,
        weight_decay_mask={"half": False, "full": True},
        rules=[("^half/", 1)],
    )
    state = transform.init(PARAMS)
    for _ in range(2):
        _, state = transform.update(PARAMS, state, PARAMS)
    found = [
        (float(h.t), float(h.size), h.decays, round(float(h.weight_decay), 3), h.axes)
        for h, *_ in seen
    ]
    bias, kernel = Axes(), Axes(reduce=(1,))
    assert found == [
        (1.0, 0.0, True, 0.1, bias),
        (1.0, 0.0, False, 0.0, kernel),
        (2.0, 0.25, True, 0.1, bias),
        (2.0, 0.25, False, 0.0, kernel),
    ]
    assert int(state.count) == 2


def test_a_leaf_without_a_gradient_keeps_its_slots():
    transform = recording([])
    _, state = transform.update(PARAMS, transform.init(PARAMS), PARAMS)
    missing = {"half": {"kernel": None}, "full": PARAMS["full"]}
    updates, new = transform.update(missing, state, PARAMS)
    assert updates["half"]["kernel"] is None
    np.testing.assert_array_equal(new.wide["half"]["kernel"], 1)
    np.testing.assert_array_equal(new.wide["full"]["bias"], 2)


def test_a_plan_leaves_leaves_free():
    seen = []
    transform = recording(
        seen,
        plan=lambda tree: {
            "half": {"kernel": "here"},
            "full": dict.fromkeys(("bias", "none")),
        },
    )
    updates, state = transform.update(PARAMS, transform.init(PARAMS), PARAMS)
    assert [h.axes for h, *_ in seen] == ["here"]
    np.testing.assert_array_equal(updates["full"]["bias"], 1)
    np.testing.assert_array_equal(state.wide["full"]["bias"], 0)
    np.testing.assert_array_equal(updates["half"]["kernel"], 0.5)


def test_slots_start_as_they_are_told_and_rules_read_further_trees():
    seen = []

    def further(updates, count, params, extra_args):
        assert (int(count), jax.tree.structure(params)) == (1, STRUCTURE)
        return (jax.tree.map(lambda g: g * extra_args["factor"], updates),)

    transform = recording(
        seen,
        initial=lambda params: (params, jax.tree.map(lambda w: 2 * w, params)),
        further=further,
    )
    state = transform.init(PARAMS)
    assert state.wide["half"]["kernel"].dtype == jnp.float32
    np.testing.assert_array_equal(state.wide["half"]["kernel"], 2)
    transform.update(PARAMS, state, PARAMS, factor=3)
    for _, _, _, own, wide, more in seen:
        for array, value in ((own, 1), (wide, 2), (more, 3)):
            np.testing.assert_array_equal(array, value)


def test_without_need_of_parameters_the_update_sets_the_dtype():
    seen = []
    transform = recording(seen, needs_params=False)
    updates, _ = transform.update(PARAMS, transform.init(PARAMS))
    assert {w for _, _, w, *_ in seen} == {None}
    assert updates["half"]["kernel"].dtype == jnp.bfloat16
    needing = recording([])
    with pytest.raises(ValueError, match="recording needs the current parameters"):
        needing.update(PARAMS, needing.init(PARAMS))


def test_what_is_out_of_range_or_matches_nothing_is_refused():
    with pytest.raises(ValueError, match=r"size=1.5 is outside of its range \[0, 1\]"):
        recording([], size=1.5)
    with pytest.raises(ValueError, match="no parameter path matches"):
        recording([], rules=[("nothing", 0)]).init(PARAMS)
