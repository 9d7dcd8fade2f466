"""Config lines of optimizers come from the modules of the methods."""

import pytest

from gnomon.experiments.config.resolve import resolve
from gnomon.experiments.configs import optimizers as lines
from gnomon.optimizers.norms import adamp, weight_norm


def test_a_line_is_what_its_module_recommends():
    assert lines.optimizer("adamp") == {
        "name": "gnomon.optimizers.adamp",
        **adamp.RECOMMENDED["adamp"],
    }
    named = weight_norm.RECOMMENDED["weight_norm_adamw"]
    assert lines.optimizer("weight_norm_adamw") == named
    for line in lines.OPTIMIZERS.values():
        assert callable(resolve(line["name"]))


def test_a_label_that_two_modules_use_is_refused(monkeypatch):
    monkeypatch.setattr(weight_norm, "RECOMMENDED", {"sgdp": {}})
    with pytest.raises(ValueError, match=r"weight_norm: a second line 'sgdp'"):
        lines.recommended()
