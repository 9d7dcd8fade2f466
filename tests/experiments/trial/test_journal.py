"""Rows of metrics have the names of the model's own layers."""

import jax
import numpy as np

from gnomon.experiments.records.metrics import read_metrics
from gnomon.experiments.trial.journal import Journal, Observation
from gnomon.experiments.trial.probes import SETTINGS


def test_an_axis_of_lanes_is_none_of_layers(tmp_path):
    """Of one lane of three stacked layers, each layer has its own column."""
    kernel = jax.ShapeDtypeStruct((1, 3, 4, 4), "float32")
    journal = Journal(
        [tmp_path],
        resume_step=0,
        row={},
        steps=9,
        tensorboard=False,
        params={"blocks": {"stacked": {"up": {"kernel": kernel}}}},
        settings=SETTINGS,
        watch=lambda tick: None,
    )
    angles = {"angle": np.array([[0.1, 0.2, 0.3, 0.6]])}
    journal.note(5, Observation({}, [], angles, np.array([-1]), {}))
    journal.flush()
    journal.close()
    (row,) = read_metrics(tmp_path)
    keys = [f"dynamics/angle/{name}" for name in ("blocks/0/up", "blocks/2/up", "all")]
    np.testing.assert_allclose([row[key] for key in keys], [0.1, 0.3, 0.6])
