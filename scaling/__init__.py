"""Scaling laws from tables of runs: fits with intervals, and how far to trust them.

>>> import numpy as np
>>> N, D = np.meshgrid(np.geomspace(1e7, 1e10, 5), np.geomspace(1e9, 1e11, 5))
>>> N, D = N.ravel(), D.ravel()
>>> noise = np.exp(0.005 * np.random.default_rng(0).standard_normal(25))
>>> loss = (1.8 + 480 / N**0.35 + 2100 / D**0.37) * noise
>>> law = fit_chinchilla(params=N, tokens=D, loss=loss, bootstrap=200)
>>> low, high = law.interval("alpha")
>>> print(f"alpha = {law.alpha:.3f} [{low:.3f}, {high:.3f}]")
alpha = 0.340 [0.329, 0.366]

`tables` says what the columns are called and turns a sweep into them, `solver` how all
laws are fitted, `fit` what a fit can be asked, `rules` what to do at another
batch size, `comparison` whether one optimizer is faster than another, `efficiencies`
by how much at other sizes and lengths. Needs NumPy and
SciPy alone, both of which JAX brings along.
"""

from gnomon.scaling.approaches import Frontier, envelope, isoflop
from gnomon.scaling.batch import fit_critical_batch
from gnomon.scaling.checklist import Item, checklist
from gnomon.scaling.chinchilla import (
    Allocation,
    ChinchillaFit,
    fit_chinchilla,
)
from gnomon.scaling.compute import fit_compute, fit_power
from gnomon.scaling.curve import Extrapolation, extrapolate_curve
from gnomon.scaling.diagnostics import Conditioning, LackOfFit
from gnomon.scaling.differences import Efficiencies, Efficiency, Exponents
from gnomon.scaling.efficiencies import fit_efficiencies
from gnomon.scaling.fit import Estimate, Fit, fit_law
from gnomon.scaling.form import Form, complex_step, power_terms
from gnomon.scaling.gap_holdout import GapHoldout
from gnomon.scaling.holdout import Holdout, holdout
from gnomon.scaling.hyperparameters import (
    adamw_timescale,
    fit_timescale,
    optima,
    predict_weight_decay,
)
from gnomon.scaling.kaplan import KaplanFit, fit_kaplan
from gnomon.scaling.repeated import fit_data_constrained
from gnomon.scaling.rules import (
    AdamSettings,
    critical_batch_rule,
    decay_of_half_life,
    half_life,
    linear_rule,
    scaled_decay,
    square_root_rule,
    weight_decay_rule,
)
from gnomon.scaling.tables import as_run_table, select
from gnomon.scaling.transfer import (
    Ladder,
    fit_accuracy,
    fit_ladder,
    fit_loss_to_loss,
)

__all__ = [
    "AdamSettings",
    "Allocation",
    "ChinchillaFit",
    "Conditioning",
    "Efficiencies",
    "Efficiency",
    "Estimate",
    "Exponents",
    "Extrapolation",
    "Fit",
    "Form",
    "Frontier",
    "GapHoldout",
    "Holdout",
    "Item",
    "KaplanFit",
    "LackOfFit",
    "Ladder",
    "adamw_timescale",
    "as_run_table",
    "checklist",
    "complex_step",
    "critical_batch_rule",
    "decay_of_half_life",
    "envelope",
    "extrapolate_curve",
    "fit_accuracy",
    "fit_chinchilla",
    "fit_compute",
    "fit_critical_batch",
    "fit_data_constrained",
    "fit_efficiencies",
    "fit_kaplan",
    "fit_ladder",
    "fit_law",
    "fit_loss_to_loss",
    "fit_power",
    "fit_timescale",
    "half_life",
    "holdout",
    "isoflop",
    "linear_rule",
    "optima",
    "power_terms",
    "predict_weight_decay",
    "scaled_decay",
    "select",
    "square_root_rule",
    "weight_decay_rule",
]
