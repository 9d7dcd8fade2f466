"""What a trial's result says of it."""

import math

import numpy as np
import pytest

from gnomon.experiments.config.trials import make_trial
from gnomon.experiments.data import Dataset
from gnomon.experiments.trial.results import make_result


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("validation_recall", math.nan, "finished"),
        ("train_recall", None, "finished"),
        ("train_loss", math.nan, "diverged"),
        ("validation_loss", math.inf, "diverged"),
        ("validation_loss", None, "diverged"),
    ],
)
def test_only_a_loss_that_is_not_finite_makes_a_trial_diverged(
    tiny, name, value, status
):
    """Another metric may have no value: the recall of a class that no batch has."""
    examples = {"x": np.zeros((8, 2), np.float32)}
    result = make_result(
        make_trial(tiny()),
        Dataset(examples, examples, "f", "example"),
        final={"train_loss": 1.0, "validation_loss": 1.0, name: value},
        diverged_at=None,
        parameters=1,
        flops_per_step=1.0,
        seconds=1.0,
    )
    assert result["status"] == status
    assert (result["diverged_at"] is None) == (status == "finished")
