r"""Critical batch size: where a larger batch stops saving steps.

The steps S and tokens :math:`B S` that reach one loss trade off as

.. math:: S = S_{\min} \left(1 + \frac{B_{crit}}{B}\right), \qquad
   B_{crit} = \frac{D_{\min}}{S_{\min}}

which is a sum of two powers of B with known exponents, 0 and -1. Measured at several
scales, :math:`B_{crit}` follows a power law, in tokens rather than parameters:
``fit_power("critical", critical=..., tokens=...)``.

References:
  McCandlish, S., Kaplan, J., Amodei, D. (2018). An Empirical Model of Large-Batch
  Training.
  Zhang, H. et al. (2025). How Does Critical Batch Size Scale in Pre-training?
"""

from typing import Any

import numpy as np

from gnomon.scaling.check import checked
from gnomon.scaling.fit import DRAWS, Fit, fit_law
from gnomon.scaling.form import Columns, Form


def fit_critical_batch(
    *,
    batch: Any,
    steps: Any,
    bootstrap: int = DRAWS,
    delta: float = 1e-3,
    seed: int = 0,
) -> Fit:
    """Fits the trade of steps against batch size at one target loss.

    Args:
      batch: ``[n]`` batch sizes, in tokens or examples.
      steps: ``[n]`` steps that each needed to the target, every other setting tuned.
      bootstrap: draws behind the intervals; 0 takes the covariance.
      delta: of Huber's loss of log residuals.
      seed: of the bootstrap.

    Returns:
      The fit of ``steps`` in ``batch``: ``minimum_steps``, ``minimum_data`` (in the
      unit of `batch`) and their ratio ``critical_batch``. At the critical batch a run
      takes twice the least steps and twice the least data; at a fifth of it, 20 %
      more data than the least.

    Raises:
      ValueError: A column is unfit, or there are fewer than three batch sizes.

    Example:
      >>> B = np.array([16.0, 64.0, 256.0, 1024.0, 4096.0])
      >>> law = fit_critical_batch(batch=B, steps=1000 * (1 + 500 / B))
      >>> print(round(law.minimum_steps, 3), round(law.critical_batch, 3))
      1000.0 500.0
    """
    columns = checked(2, distinct={"batch": 2}, batch=batch, steps=steps)
    measured = columns.pop("steps")

    names = frozenset({"minimum_steps", "minimum_data", "critical_batch"})
    form = Form(_basis, (), np.zeros((0, 2)), _named, names, "S = S_min + D_min / B")
    return fit_law(
        form, columns, "steps", measured, bootstrap=bootstrap, delta=delta, seed=seed
    )


def _basis(theta: np.ndarray, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    terms = np.stack([np.ones_like(columns["batch"]), 1 / columns["batch"]])
    phi = np.broadcast_to(terms, (*theta.shape[:-1], *terms.shape))
    return phi, np.zeros((*theta.shape[:-1], 0, *terms.shape))


def _named(theta: np.ndarray, c: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "minimum_steps": c[..., 0],
        "minimum_data": c[..., 1],
        "critical_batch": c[..., 1] / np.maximum(c[..., 0], 1e-300),
    }
