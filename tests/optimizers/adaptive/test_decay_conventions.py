"""AdamW's lines by other conventions of decay: optax's, and where they part."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.experiments.configs.optimizers import OPTIMIZERS
from gnomon.optimizers import subset_norm
from gnomon_contract import Verified

VERIFIED = {
    "adamw_independent": Verified(
        "A05", "optax 0.2.8", 1e-12, "https://arxiv.org/abs/1711.05101"
    ),
    "adamw_cautious": Verified(
        "A05", "optax 0.2.8", 1e-12, "https://arxiv.org/abs/2510.12402"
    ),
}
W = {"kernel": np.cos(np.arange(12.0)).reshape(4, 3), "bias": np.ones(3)}


def trained(optimizer, steps=20):
    def step(carry, t):
        w, state = carry
        g = jax.tree.map(lambda x: jnp.sin(3 * x + t), w)
        updates, state = optimizer.update(g, state, w)
        return (optax.apply_updates(w, updates), state), updates

    w = jax.tree.map(jnp.asarray, W)
    with jax.numpy_dtype_promotion("standard"):
        start = w, optimizer.init(w)
        (w, _), moved = jax.lax.scan(step, start, jnp.arange(steps, dtype=float))
    return w, moved


def test_the_lines_are_adamw(x64):
    """Independent with a decay over the rate; cautious where all decay is cautious."""
    for label, said in VERIFIED.items():
        line = dict(OPTIMIZERS[label])
        assert line.pop("name") == "gnomon.optimizers.subset_norm"
        rate, decay = line["learning_rate"], line["weight_decay"]
        if label == "adamw_cautious":  # no decay, or the very sign of the weight
            line["weight_decay"] = decay = 0.0
        scale = rate if line["decay"] == "independent" else 1.0
        theirs = optax.adamw(rate, b1=0.9, b2=0.99, weight_decay=decay / scale)
        found, wanted = trained(subset_norm(**line))[0], trained(theirs)[0]
        jax.tree.map(
            lambda a, b, atol=said.within: np.testing.assert_allclose(
                a, b, rtol=0, atol=atol
            ),
            found,
            wanted,
        )


def test_cautious_decay_never_works_against_the_step(x64):
    """It is AdamW's where Adam's step shrinks the weight, and none elsewhere."""
    line = {k: v for k, v in OPTIMIZERS["adamw_cautious"].items() if k != "name"}
    w = jax.tree.map(jnp.asarray, W)
    g = jax.tree.map(lambda x: jnp.sin(4 * x), w)

    def step(**changes):
        optimizer = subset_norm(**line | changes)
        return optimizer.update(g, optimizer.init(w), w)[0]["kernel"]

    cautious, scaled, none = step(), step(decay="scaled"), step(weight_decay=0.0)
    shrinks = np.sign(g["kernel"]) == np.sign(w["kernel"])
    assert 0 < shrinks.mean() < 1
    np.testing.assert_array_equal(cautious, jnp.where(shrinks, scaled, none))
