"""Slices of the loss against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.dynamics.landscape import (
    filter_direction,
    interpolate,
    linear_barrier,
    loss_line,
    loss_plane,
)


def test_every_filter_of_a_direction_is_as_long_as_the_weights_filter():
    rng = np.random.default_rng(0)
    params = {
        "conv": {"kernel": jnp.asarray(rng.normal(size=(2, 2, 3, 4)), jnp.bfloat16)},
        "blocks": {"kernel": jnp.asarray(rng.normal(size=(2, 5, 6)), jnp.float32)},
        "norm": {"scale": jnp.ones(4)},
    }
    direction = filter_direction(jax.random.key(0), params, stacked="^blocks/")

    def norms(tree, name, axes):
        x = np.asarray(tree[name]["kernel"].astype(jnp.float32))
        return np.sqrt((x**2).sum(axis=axes))

    for name, axes in (("conv", (0, 1, 2)), ("blocks", (1,))):
        np.testing.assert_allclose(
            norms(direction, name, axes), norms(params, name, axes), rtol=1e-5
        )
    assert direction["norm"]["scale"].tolist() == [0.0] * 4
    assert direction["conv"]["kernel"].dtype == jnp.float32


def test_a_quadratic_is_a_parabola_along_every_line():
    matrix = jnp.array([[2.0, 1.0], [1.0, 3.0]])

    def loss(w):
        return 0.5 * w @ matrix @ w

    point, first, second = (jnp.array(x) for x in ([1.0, -1.0], [1.0, 0.0], [0.5, 2.0]))
    steps = jnp.linspace(-1.0, 1.0, 5)
    line = jax.jit(lambda p: loss_line(loss, p, first, steps))(point)
    slope, curvature = first @ matrix @ point, first @ matrix @ first
    np.testing.assert_allclose(
        line, loss(point) + slope * steps + 0.5 * curvature * steps**2, rtol=1e-5
    )
    plane = loss_plane(loss, point, first, second, steps, steps[:3])
    assert plane.shape == (5, 3)
    np.testing.assert_allclose(
        plane[:, 1], loss_line(loss, point - 0.5 * second, first, steps), rtol=1e-5
    )


def test_small_steps_move_bfloat16_weights():
    """Steps of 1e-4 vanish in bfloat16; the line is drawn in float32."""
    line = loss_line(jnp.sum, jnp.ones(4, jnp.bfloat16), jnp.ones(4), [0.0, 1e-4])
    np.testing.assert_allclose(line[1] - line[0], 4e-4, rtol=1e-2)


def test_a_barrier_is_measured_from_the_line_between_the_ends():
    """On `x⁴ - 2x² + x` the tilt between the minima counts for nothing."""
    ends = jnp.array([-1.0, 1.0])
    barriers = jax.jit(
        jax.vmap(
            lambda tilt: linear_barrier(
                lambda w: w**4 - 2 * w**2 + tilt * w, ends[0], ends[1], points=21
            )
        )
    )(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(barriers.height, [1.0, 1.0], rtol=1e-5)
    np.testing.assert_allclose(barriers.position, [0.5, 0.5], rtol=1e-6)
    convex = linear_barrier(lambda w: w**2, ends[0], ends[1], points=5)
    assert convex.height == 0.0
    np.testing.assert_allclose(convex.losses, [1.0, 0.25, 0.0, 0.25, 1.0])


def test_a_loss_that_is_nan_gives_a_barrier_that_is_nan():
    barrier = linear_barrier(jnp.sqrt, jnp.float32(-1.0), jnp.float32(1.0), points=3)
    assert bool(jnp.isnan(barrier.height))
    with pytest.raises(ValueError, match="points: 2"):
        linear_barrier(jnp.sqrt, jnp.float32(0.0), jnp.float32(1.0), points=2)


def test_interpolation_keeps_its_ends():
    a, b = jnp.array([0.1, -3.0]), jnp.array([7.0, 0.3])
    assert jnp.array_equal(interpolate(a, b, 0.0), a)
    assert jnp.array_equal(interpolate(a, b, 1.0), b)
