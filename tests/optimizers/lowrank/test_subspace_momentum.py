"""Subspace-Momentum: NumPy across refreshes, momentum at full rank, descent."""

from gnomon.optimizers import subspace_momentum
from gnomon.optimizers.lowrank.subspace_momentum import scale_by_subspace_momentum
from gnomon_contract import Verified

GIVEN = {"subspace_momentum": dict(rank=2)}
LAYERS = {"subspace_momentum": lambda **s: subspace_momentum(0.1, rank=2, every=2, **s)}
VERIFIED = {"subspace_momentum": Verified("F05", "NumPy", 1e-12)}
B1 = 0.8


def average(x, memory, t):
    memory["m"] = B1 * memory.get("m", 0.0) + (1 - B1) * x
    return memory["m"]


def test_equals_a_numpy_transcription(beside, numpy_rules):
    _, leading = numpy_rules

    def rule(x, memory, t):
        if x.ndim == 1:
            return average(x, memory, t)
        if t % 4 == 1:
            memory |= dict(p=leading(x, 2), m=0.0)
        p = memory["p"]
        return p @ average(p.T @ x, memory, t) + x - p @ p.T @ x

    ours = scale_by_subspace_momentum(B1, rank=2, every=4, matrices="kernel")
    within = VERIFIED["subspace_momentum"].within
    assert beside(ours, rule) <= within

    def without(x, memory, t):
        return x

    ours = scale_by_subspace_momentum(0.0, rank=1, every=4, matrices="kernel")
    assert beside(ours, without, 6) <= within
    ours = scale_by_subspace_momentum(B1, rank=None, matrices="kernel")
    assert beside(ours, average, 6) <= within
