"""SGDW, which is SGDP that never projects: a published port."""

from gnomon.experiments.configs.optimizers import OPTIMIZERS
from gnomon.optimizers import sgdp
from gnomon_contract import Verified

VERIFIED = {
    "sgdw": Verified(
        "A05", "timm 1.0.31 SGDW", 1e-15, "https://arxiv.org/abs/1711.05101"
    )
}


def test_equals_a_published_port(recorded):
    """Whose rate is outside of the momentum; SGDP divides its decay by 1 - momentum."""
    decay = 0.1 * (1 - 0.8)
    optimizer = sgdp(0.05, momentum=0.8, delta=0.0, weight_decay=decay)
    assert recorded("sgdw", optimizer) <= VERIFIED["sgdw"].within
    line = OPTIMIZERS["sgdw"]
    assert (line["name"], line["delta"]) == ("gnomon.optimizers.sgdp", 0.0)
