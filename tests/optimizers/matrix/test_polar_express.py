"""Polar Express: the published coefficients, and Muon with them."""

import jax
import numpy as np
import optax

from gnomon.experiments.config.resolve import build
from gnomon.experiments.configs.optimizers import optimizer
from gnomon.optimizers import head_matrices, polar_express
from gnomon.optimizers.matrices import hidden_matrices
from gnomon_contract import Verified
from gnomon_contract.layers import NAMED

LAYERS = {
    "head_matrices": lambda params, **s: jax.tree.map(
        lambda numbers: np.array([len(part) for part in numbers]),
        head_matrices(params, **s),
        is_leaf=lambda x: isinstance(x, optax.contrib.MuonDimensionNumbers),
    )
}
PAPER = "https://arxiv.org/abs/2505.16932"
VERIFIED = {
    "muon_polar_express": Verified("A20", "the published coefficients", 1e-9, PAPER),
    "muon_per_head": Verified("A20", "a model of one head a kernel", 1e-6, PAPER),
}
# As the paper's code prints them, for values from 1e-3 on and without a safety.
PUBLISHED = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)


def test_coefficients_are_the_published_ones():
    within = VERIFIED["muon_polar_express"].within
    np.testing.assert_allclose(polar_express(7, safety=1.0), PUBLISHED, rtol=within)
    a, b, c = polar_express(3, safety=1.02)[1]
    wanted = PUBLISHED[1] / 1.02 ** np.array([1, 3, 5])
    np.testing.assert_allclose((a, b, c), wanted, rtol=within)
    # The last row is not made safe.
    last = polar_express(3, safety=1.02)[2]
    np.testing.assert_allclose(last, PUBLISHED[2], rtol=within)


def test_intervals_of_all_kinds_have_coefficients():
    for smallest in (1e-8, 0.3, 0.999, 1.0):
        found = np.array(polar_express(6, smallest, safety=1.0))
        x = np.linspace(smallest, 1, 50)
        for a, b, c in found:
            x = a * x + b * x**3 + c * x**5
        assert np.isfinite(found).all()
        assert np.abs(x - 1).max() < (1.0 if smallest < 1e-3 else 1e-6)


def test_heads_are_matrices_of_their_own(x64):
    """The config line on a query kernel is that on a kernel a head."""
    line = optimizer("muon_per_head")
    key = jax.random.key(0)
    whole = {"query": {"kernel": jax.random.normal(key, (8, 2, 4))}}
    apart = {
        f"head{i}_query": {"kernel": whole["query"]["kernel"][:, i]} for i in range(2)
    }
    apart = {f"q{i}": tree for i, tree in enumerate(apart.values())}
    made = build(line)
    with jax.numpy_dtype_promotion("standard"):  # optax: a float to an int32 count
        together, _ = made.update(whole, made.init(whole), whole)
        single, _ = made.update(apart, made.init(apart), apart)
    for i in range(2):
        np.testing.assert_allclose(
            together["query"]["kernel"][:, i],
            single[f"q{i}"]["kernel"],
            atol=VERIFIED["muon_per_head"].within,
        )
    joint = build(optimizer("muon_polar_express"))
    with jax.numpy_dtype_promotion("standard"):
        other, _ = joint.update(whole, joint.init(whole), whole)
    assert np.abs(other["query"]["kernel"] - together["query"]["kernel"]).max() > 1e-4


def test_kinds_of_leaves():
    shape = jax.ShapeDtypeStruct
    params = {
        "query": {"kernel": shape((8, 2, 4), "float32")},
        "out": {"kernel": shape((2, 4, 8), "float32")},
        "conv": {"kernel": shape((3, 4, 8), "float32")},
        "up": {"kernel": shape((8, 16), "float32")},
    }
    found = head_matrices(params, outer="none")
    assert found["query"]["kernel"] == ((0,), (2,))
    assert found["out"]["kernel"] == ((1,), (2,))
    whole = hidden_matrices(params, outer="none")
    for name in ("conv", "up"):
        assert found[name] == whole[name]
    stacked = head_matrices(NAMED)["blocks"]["stacked"]["query"]["kernel"]
    assert stacked == ((1,), (3,))
