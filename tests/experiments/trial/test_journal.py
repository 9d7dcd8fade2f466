"""Rows of metrics have the names of the model's own layers."""

import jax
import numpy as np

from gnomon.experiments.records.metrics import read_metrics
from gnomon.experiments.trial.journal import Journal, Observation
from gnomon.experiments.trial.probes import SETTINGS


def journal_of(folders, params):
    return Journal(
        folders,
        resume_step=0,
        row={},
        steps=9,
        tensorboard=False,
        configs=[{}] * len(folders),
        params=params,
        settings=SETTINGS,
        watch=lambda tick: None,
    )


def test_an_axis_of_lanes_is_none_of_layers(tmp_path):
    """Of one lane of three stacked layers, each layer has its own column."""
    kernel = jax.ShapeDtypeStruct((1, 3, 4, 4), "float32")
    journal = journal_of(
        [tmp_path], {"blocks": {"stacked": {"up": {"kernel": kernel}}}}
    )
    angles = {"angle": np.array([[0.1, 0.2, 0.3, 0.6]])}
    journal.note(5, Observation({}, [], angles, np.array([-1]), {}))
    journal.flush()
    journal.close()
    (row,) = read_metrics(tmp_path)
    keys = [f"dynamics/angle/{name}" for name in ("blocks/0/up", "blocks/2/up", "all")]
    np.testing.assert_allclose([row[key] for key in keys], [0.1, 0.3, 0.6])


def test_where_all_steps_were_skipped_the_last_value_stays(tmp_path):
    """No row has a mean of nothing, and a trial that ends so has not diverged."""
    journal = journal_of([tmp_path / "0", tmp_path / "1"], {})
    for step, counts in ((3, [2.0, 2.0]), (6, [2.0, 0.0])):
        window = {
            "loss": np.float32([6.0, 8.0]) * (np.array(counts) > 0),
            "count": np.float32(counts),
        }
        evaluated = [{"loss": np.array([[1.0], [2.0]])}]
        journal.note(step, Observation(window, evaluated, {}, np.full(2, -1), {}))
    journal.flush()
    journal.close()
    assert journal.row == {"train_loss": [3.0, 4.0], "validation_loss": [1.0, 2.0]}
    (_, one), (_, other) = (read_metrics(tmp_path / lane) for lane in "01")
    assert one == {"step": 6, "train_loss": 3.0, "validation_loss": 1.0}
    assert other == {"step": 6, "validation_loss": 2.0}
