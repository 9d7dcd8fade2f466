"""From the trials of a sweep to the columns that laws are fitted to."""

import json

import numpy as np
import pytest

from gnomon.experiments.records.tables import run_table
from gnomon.scaling import fit_chinchilla, select


@pytest.fixture
def sweep(tmp_path):
    """A sweep's folder: twelve finished trials, one diverged, one not done."""
    for trial in range(14):
        folder = tmp_path / "trials" / f"{trial:02d}"
        folder.mkdir(parents=True)
        width, steps = 16 * 2 ** (trial % 4), 100 * 2 ** (trial // 4)
        params = 24.0 * width**2
        optimizer = {"name": "optax.adamw", "learning_rate": 1e-3}
        config = {"label": "AdamW", "seed": 0, "steps": steps, "batch": 16}
        config |= {"optimizer": optimizer, "model": {"width": width}}
        (folder / "config.json").write_text(json.dumps(config))
        if trial == 13:
            continue
        status = "diverged" if trial == 12 else "finished"
        loss = (
            None if trial == 12 else 1 + 20 / params**0.3 + 30 / (1024 * steps) ** 0.4
        )
        result = {"trial": f"{trial:02d}", "status": status, "parameters": params}
        result |= {"final": {"validation_loss": loss}, "units": 1024.0 * steps}
        result |= {"compute": 6 * params * 1024 * steps, "seconds": 1.0}
        (folder / "result.json").write_text(json.dumps(result))
    return tmp_path


def test_a_sweep_becomes_a_table_that_fits_take(sweep):
    table = run_table(sweep)
    assert len(table["loss"]) == 12
    np.testing.assert_array_equal(table["batch"], 1024)
    law = fit_chinchilla(**select(table, "params", "tokens", "loss"))
    np.testing.assert_allclose([law.E, law.alpha, law.beta], [1, 0.3, 0.4], rtol=1e-3)
    with pytest.raises(ValueError, match=r"metric='accuracy'.*validation_loss"):
        run_table(sweep, metric="accuracy")
