r"""The covariance of a robust fit whose noise may differ from run to run.

With rows :math:`x_i` of slopes, residuals :math:`r_i` and :math:`\psi` the slope of
Huber's loss, the estimate is the sandwich

.. math:: \Sigma = H^{-1} \left( \sum_i \left(
   \frac{\psi(r_i)}{1 - h_i}\right)^2 x_i x_i^T \right) H^{-1}, \qquad
   H = \sum_i \psi'(r_i) \, x_i x_i^T

:math:`h_i = x_i^T (\sum_j x_j x_j^T)^{-1} x_i` is the leverage of a run: dividing by
:math:`1 - h_i` puts back what the fit takes off the residuals of runs that draw it
toward them (HC3).

:math:`\psi'` is 1 within :math:`\delta`, which is mostly so small that few residuals
are. It is therefore counted in a window as wide as their spread, and scaled down by
:math:`\delta` over that width.

References:
  Huber, P. J. (1967). The behavior of maximum likelihood estimates under nonstandard
  conditions.
  MacKinnon, J. G. and White, H. (1985). Some heteroskedasticity-consistent covariance
  matrix estimators with improved finite sample properties.
  Powell, J. L. (1991). Estimation of monotonic regression models under quantile
  restrictions.
"""

import numpy as np


def sandwich(
    rows: np.ndarray, residual: np.ndarray, count: np.ndarray, delta: float
) -> np.ndarray:
    """The covariance of the unknowns.

    Args:
      rows: ``[p, n]`` slopes of the log predictions of n different runs.
      residual: ``[n]`` log errors.
      count: ``[n]`` how often each run is in the table: a copy weighs in the fit, but
        is no further evidence.
      delta: of Huber's loss.

    Returns:
      ``[p, p]``.

    Example:
      The mean of four numbers, whose squared error is HC3's.

      >>> r = np.array([-0.3, 0.1, 0.1, 0.1])
      >>> print(sandwich(np.ones((1, 4)), r, np.ones(4), delta=1.0).round(5))
      [[0.01333]]
    """
    n = rows.shape[1]
    gram = (rows * count) @ rows.T
    leverage = count * np.einsum("pn,pq,qn->n", rows, _inverse(gram), rows)
    # A run that alone tells an unknown has no residual and no measure of its error.
    left = np.maximum(1 - leverage, 1 / n)
    score = count * np.clip(residual, -delta, delta) / left
    # The window shrinks as n^(-1/5), the rate at which a histogram's bin has the
    # least error. One robust standard deviation at n = 50 makes up for the p
    # residuals that a robust fit brings to about zero.
    window = max(delta, np.median(np.abs(residual)) / 0.6745 * (n / 50) ** -0.2)
    inside = np.abs(residual) <= window
    while _rank(rows[:, inside]) < _rank(rows):
        window = 1.5 * window
        inside = np.abs(residual) <= window
    slope = (rows * count * inside) @ rows.T * delta / window
    outer = _inverse(slope)
    covariance: np.ndarray = outer @ ((rows * score**2) @ rows.T) @ outer
    return covariance


def _inverse(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.pinv(matrix, rcond=1e-14, hermitian=True)


def _rank(rows: np.ndarray) -> int:
    """Of rows of any units; those of a coefficient that is zero count for nothing."""
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    return int(np.linalg.matrix_rank(rows[size[:, 0] > 0] / size[size > 0][:, None]))
