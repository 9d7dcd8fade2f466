"""Runs drawn from a law whose constants are those of a published replication."""

import numpy as np
import pytest

LAW = {"E": 1.817, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}


@pytest.fixture
def law():
    return dict(LAW)


@pytest.fixture
def chinchilla_runs():
    """Makes an IsoFLOP design with log-normal noise of a given size."""

    def make(noise=0.0, budgets=6, sizes=8, seed=0):
        budget = np.geomspace(6e18, 3e21, budgets)[:, None]
        params = np.sqrt(budget / 120) * np.geomspace(0.2, 5, sizes)
        tokens = (budget / (6 * params)).ravel()
        params = params.ravel()
        loss = LAW["E"] + LAW["A"] / params ** LAW["alpha"]
        loss = loss + LAW["B"] / tokens ** LAW["beta"]
        rng = np.random.default_rng(seed)
        loss = loss * np.exp(noise * rng.standard_normal(loss.shape))
        return {"params": params, "tokens": tokens, "loss": loss}

    return make
