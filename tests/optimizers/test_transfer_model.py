"""The language model under muP: what starts smaller, and what is multiplied."""

import jax
import numpy as np

from gnomon.models import TransformerLM, functional, parameter_shapes
from gnomon.optimizers import learning_rate_factors, mup_rule

SMALL = {"vocab": 16, "depth": 1, "head_dim": 4}


def test_embedding_and_logits_of_a_model_twice_its_base_width():
    tokens = np.arange(16).reshape(2, 8) % 16
    for tied in (True, False):
        sizes = {**SMALL, "width": 8, "tied": tied}
        standard = functional(TransformerLM, **sizes)
        wide = functional(TransformerLM, **sizes, base_width=4)
        start, scaled = (net.init(jax.random.key(0))[0] for net in (standard, wide))
        # Variance 1 / 4 in place of 1 / 8, of these leaves and of no other.
        names = {"embed", *(() if tied else ("head",))}
        for name in start:
            ratio = np.sqrt(2) if name in names else 1
            jax.tree.map(
                lambda a, b, ratio=ratio: np.testing.assert_allclose(
                    a, ratio * b, rtol=1e-6
                ),
                scaled[name],
                start[name],
            )
        plain, halved = (
            net.apply(start, {}, tokens, train=True)[0] for net in (standard, wide)
        )
        np.testing.assert_allclose(halved, plain / 2, rtol=1e-6)


def test_at_its_own_width_the_model_is_the_standard_one():
    sizes = {**SMALL, "width": 8, "tied": False}
    models = [functional(TransformerLM, **sizes, base_width=b) for b in (None, 8)]
    start, other = (net.init(jax.random.key(0))[0] for net in models)
    jax.tree.map(np.testing.assert_array_equal, start, other)


def test_roles_of_the_language_models_parameters():
    """Scanned or not; the multiplier leaves the head's rate as it was."""
    for scan, stacked in ((False, None), (True, "^blocks/")):
        wide, base = (
            parameter_shapes(TransformerLM, **SMALL, width=w, tied=False, scan=scan)
            for w in (16, 8)
        )
        rule = mup_rule("adam", output_multiplier=True)
        factors = learning_rate_factors(wide, base, rule, stacked=stacked)
        assert set(jax.tree.leaves(factors["blocks"])) == {0.5, 1.0}
        block = factors["blocks"]["stacked" if scan else "0"]
        kernels = [*block["attention"].values(), *block["mlp"].values()]
        assert [kernel["kernel"] for kernel in kernels] == [0.5] * 6
        assert factors["embed"] == {"embedding": 1.0}
        assert factors["head"] == {"kernel": 1.0}
        assert block["mlp_norm"] == factors["final_norm"] == {"scale": 1.0}
