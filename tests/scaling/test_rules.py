"""Rules for another batch size, against what each is meant to keep."""

import numpy as np
import pytest

from gnomon.scaling import (
    adamw_timescale,
    critical_batch_rule,
    decay_of_half_life,
    half_life,
    linear_rule,
    scaled_decay,
    square_root_rule,
    weight_decay_rule,
)

BATCHES = np.array([1.0, 32.0, 512.0, 8192.0])


def test_a_half_life_is_the_data_after_which_half_is_left():
    tokens = half_life(0.95, batch=512)
    np.testing.assert_allclose(0.95 ** (tokens / 512), 0.5, rtol=1e-12)
    np.testing.assert_allclose(decay_of_half_life(tokens, batch=512), 0.95, rtol=1e-12)


def test_a_scaled_decay_has_the_same_half_life_at_every_batch():
    decays = scaled_decay(0.95, batch=512, new_batch=BATCHES)
    np.testing.assert_allclose(
        half_life(decays, batch=BATCHES), half_life(0.95, batch=512), rtol=1e-10
    )
    assert np.all((decays > 0) & (decays < 1))


def test_the_published_example_of_the_half_life_rule():
    """b2 = 0.95 at a batch of 512 is 0.99989982 at a batch of one."""
    assert round(float(scaled_decay(0.95, batch=512, new_batch=1)), 8) == 0.99989982


def test_the_first_order_rule_is_the_half_life_rule_while_changes_are_small():
    b2 = 0.9999
    first = square_root_rule(1e-3, b2=b2, batch=64, new_batch=256).b2
    exact = scaled_decay(b2, batch=64, new_batch=256)
    np.testing.assert_allclose(1 - first, 1 - exact, rtol=2e-4)
    assert first != exact


def test_square_root_rule_keeps_the_noise_of_adam():
    """What the rule holds, at every batch: the variance that steps add over the same
    data, and the time in data of both moments, and the ratio of eps to the noise in
    the gradient, whose standard deviation falls as the root of the batch."""
    scaled = [square_root_rule(1e-3, batch=64, new_batch=b) for b in (32.0, 128.0)]
    for batch, new in zip((32.0, 128.0), scaled, strict=True):
        np.testing.assert_allclose(new.learning_rate**2 / batch, 1e-6 / 64, rtol=1e-12)
        np.testing.assert_allclose((1 - new.b1) / batch, 0.1 / 64, rtol=1e-12)
        np.testing.assert_allclose((1 - new.b2) / batch, 0.001 / 64, rtol=1e-10)
        np.testing.assert_allclose(new.eps * batch**0.5, 1e-8 * 8, rtol=1e-12)


def test_square_root_rule_refuses_a_negative_decay():
    with pytest.raises(ValueError, match=r"b1: the rule gives -0\.6.*scaled_decay"):
        square_root_rule(1e-3, batch=64, new_batch=1024)


def test_linear_rule_takes_the_same_distance_over_the_same_data():
    rates = linear_rule(0.1, batch=512, new_batch=BATCHES)
    np.testing.assert_allclose(rates / BATCHES, 0.1 / 512, rtol=1e-12)


def test_the_critical_batch_divides_the_linear_rule_from_a_constant():
    def rule(batch, new_batch):
        return critical_batch_rule(
            0.1, batch=batch, new_batch=new_batch, critical_batch=1e4
        )

    np.testing.assert_allclose(rule(1, 4), linear_rule(0.1, batch=1, new_batch=4), 1e-3)
    np.testing.assert_allclose(rule(1e9, 4e9), 0.1, rtol=1e-3)
    # At the critical batch the rate is half of what it is with exact gradients.
    np.testing.assert_allclose(rule(1e4, 1e14), 0.2, rtol=1e-9)
    # By way of a third batch the rule is the same.
    there = rule(64, 4096)
    back = critical_batch_rule(there, batch=4096, new_batch=64, critical_batch=1e4)
    np.testing.assert_allclose(back, 0.1, rtol=1e-12)


def test_the_timescale_is_the_same_share_of_the_new_run():
    decay = weight_decay_rule(
        0.1,
        learning_rate=1e-3,
        new_learning_rate=3e-3,
        batch=1e5,
        new_batch=BATCHES,
        data_ratio=5.0,
    )
    new = adamw_timescale(
        batch=BATCHES, learning_rate=3e-3, weight_decay=decay, tokens=5e10
    )
    old = adamw_timescale(batch=1e5, learning_rate=1e-3, weight_decay=0.1, tokens=1e10)
    np.testing.assert_allclose(new, old, rtol=1e-12)
