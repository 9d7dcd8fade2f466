r"""Fits a sum of nonnegative terms, robustly and in log space, without a lucky start.

Minimizes over :math:`\theta` and :math:`c \ge 0`

.. math:: \sum_i w_i \, H_\delta\big(\log \hat y(x_i) - \log y_i\big), \qquad
   H_\delta(r) = \begin{cases} r^2 / 2 & |r| \le \delta \\
   \delta (|r| - \delta / 2) & \text{otherwise} \end{cases}

in two steps. `search` visits every point of a grid over :math:`\theta`; the
coefficients there follow from a few reweighted, exact nonnegative least-squares
problems (variable projection: what is linear is never searched). `polish` then moves
all unknowns from the grid's local minima to convergence, and takes the best. Nothing
is drawn at random. Both run on many problems at once, so a bootstrap is one call:
`scipy.optimize.least_squares` and `nnls` take one at a time.

References:
  Golub, G. and Pereyra, V. (2003). Separable nonlinear least squares: the variable
  projection method and its applications. Inverse Problems 19.
  Holland, P. and Welsch, R. (1977). Robust regression using iteratively reweighted
  least-squares. Communications in Statistics A6.
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy import ndimage, special

from gnomon.scaling.form import Columns, Form
from gnomon.scaling.nonnegative import nonnegative_least_squares

BLOCK = 64  # problems worked on together: what fits in a processor's cache
STARTS = 8  # local minima of the grid that are polished


class Solution(NamedTuple):
    """Where the objective is least.

    Attributes:
      theta: ``[..., q]``.
      coefficients: ``[..., m]``.
      value: ``[...]`` the objective.
    """

    theta: np.ndarray
    coefficients: np.ndarray
    value: np.ndarray


def solve(
    form: Form, columns: Columns, target: np.ndarray, delta: float = 1e-3
) -> Solution:
    """The best fit of a law.

    Args:
      form: the law.
      columns: its inputs, n rows each.
      target: ``[n]`` positive measurements.
      delta: where Huber's loss turns linear, in units of log y: a relative error.

    Returns:
      One solution.
    """
    log_target = np.log(target)
    start = search(form, columns, log_target, delta)
    weights = np.ones_like(log_target)
    ends = polish(form, columns, log_target, weights, start, delta)
    best = int(np.argmin(ends.value))
    return Solution(*(part[best] for part in ends))


def search(
    form: Form, columns: Columns, log_target: np.ndarray, delta: float
) -> Solution:
    """The local minima of the objective on the grid, best first, at most `STARTS`."""
    nodes = np.array(list(itertools.product(*form.grid)), dtype=np.float64)
    found = [
        _project(form, columns, log_target, theta, delta)
        for theta in np.array_split(nodes, -(-len(nodes) // BLOCK))
    ]
    coefficients = np.concatenate([c for c, _ in found])
    value = np.concatenate([v for _, v in found])
    landscape = value.reshape([len(axis) for axis in form.grid])
    around = landscape
    if form.grid:
        around = ndimage.minimum_filter(landscape, size=3, mode="nearest")
    minima = np.flatnonzero(landscape == around)
    order = minima[np.argsort(value[minima], kind="stable")][:STARTS]
    return Solution(nodes[order], coefficients[order], value[order])


def _project(
    form: Form,
    columns: Columns,
    log_target: np.ndarray,
    theta: np.ndarray,
    delta: float,
    rounds: int = 6,
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and objective for each theta: Gauss-Newton steps on log y."""
    phi, _ = form.basis(theta, columns)
    # The first round weighs errors relative to what was measured.
    prediction = np.broadcast_to(np.exp(log_target), (len(theta), len(log_target)))
    residual = np.zeros_like(prediction)
    coefficients = np.zeros(phi.shape[:-1])
    for _ in range(rounds):
        weight = np.minimum(1.0, delta / np.maximum(np.abs(residual), delta))
        relative = phi / prediction[:, None, :]
        weighted = relative * weight[:, None, :]
        goal = 1.0 + log_target - np.log(prediction)
        gram = weighted @ relative.swapaxes(-1, -2)
        right = np.einsum("sjn,sn->sj", weighted, goal)
        coefficients = nonnegative_least_squares(gram, right)
        prediction = np.einsum("sj,sjn->sn", coefficients, phi)
        prediction = np.maximum(prediction, 1e-6 * np.exp(log_target))
        residual = np.log(prediction) - log_target
    return coefficients, special.huber(delta, residual).sum(axis=-1)


def polish(
    form: Form,
    columns: Columns,
    log_target: np.ndarray,
    weights: np.ndarray,
    start: Solution,
    delta: float,
    iterations: int = 300,
) -> Solution:
    """Moves theta and the logarithms of the coefficients to a minimum.

    Args:
      form: the law.
      columns: its inputs, n rows each.
      log_target: ``[n]`` or ``[problems, n]``.
      weights: ``[n]`` or ``[problems, n]``, how often each row counts.
      start: where to begin, ``[problems]`` or one for all.
      delta: of Huber's loss.
      iterations: at most so many steps a problem.

    Returns:
      A solution for each problem.
    """
    rows = log_target.shape[-1]
    problems = max(
        x.shape[0] if x.ndim > 1 else 1
        for x in (log_target, weights, np.atleast_2d(start.theta))
    )
    log_target = np.broadcast_to(log_target, (problems, rows))
    weights = np.broadcast_to(weights, (problems, rows))
    theta = np.broadcast_to(start.theta, (problems, start.theta.shape[-1]))
    # From exactly zero the logarithm could never return.
    floor = 1e-4 * start.coefficients.max(axis=-1, keepdims=True)
    logs = np.log(np.maximum(start.coefficients, floor))
    logs = np.broadcast_to(logs, (problems, logs.shape[-1]))
    point = np.concatenate([theta, logs], axis=-1)
    ends = [
        _descend(form, columns, log_target[b], weights[b], point[b], delta, iterations)
        for b in np.array_split(np.arange(problems), -(-problems // BLOCK))
    ]
    point = np.concatenate([p for p, _ in ends])
    q = theta.shape[-1]
    value = np.concatenate([v for _, v in ends])
    return Solution(point[:, :q], np.exp(point[:, q:]), value)


def jacobian(
    form: Form, columns: Columns, theta: np.ndarray, coefficients: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log predictions ``[..., n]``, and slopes in theta and log c ``[..., p, n]``."""
    phi, slope = form.basis(theta, columns)
    parts = coefficients[..., None] * phi
    prediction = parts.sum(axis=-2)
    along = np.einsum("...j,...kjn->...kn", coefficients, slope)
    rows = np.concatenate([along, parts], axis=-2) / prediction[..., None, :]
    return np.log(prediction), rows


def _descend(
    form: Form,
    columns: Columns,
    log_target: np.ndarray,
    weights: np.ndarray,
    point: np.ndarray,
    delta: float,
    iterations: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Damped Gauss-Newton steps, each taken only if the objective falls."""
    q = len(form.grid)
    low = np.concatenate([form.bounds[:, 0], np.full(point.shape[1] - q, -700.0)])
    high = np.concatenate([form.bounds[:, 1], np.full(point.shape[1] - q, 700.0)])

    def evaluate(
        at: np.ndarray, pick: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        log, rows = jacobian(form, columns, at[:, :q], np.exp(at[:, q:]))
        residual = log - log_target[pick]
        return (
            (weights[pick] * special.huber(delta, residual)).sum(axis=-1),
            residual,
            rows,
        )

    point = np.clip(point, low, high)
    every = np.arange(len(point))
    value, residual, rows = evaluate(point, every)
    damping = np.full(len(point), 1e-2)
    tail = np.ones(len(point))
    quiet = np.zeros(len(point), dtype=int)
    for _ in range(iterations):
        live = np.flatnonzero(quiet < 3)
        if not len(live):
            break
        size = np.abs(residual[live])
        outside = delta / np.maximum(size, delta)
        pull = weights[live] * outside
        # With tail = 1 this is iterative reweighting, which always descends but
        # slowly; with tail near 0 it is Newton's step on Huber's loss, which is
        # quick once it is settled which rows lie within delta.
        curve = pull * np.where(size > delta, tail[live, None], 1.0)
        gradient = np.einsum("spn,sn->sp", rows[live], pull * residual[live])
        blocked = ((point[live] <= low) & (gradient > 0)) | (
            (point[live] >= high) & (gradient < 0)
        )
        free = np.where(blocked, 0.0, 1.0)
        matrix = (rows[live] * curve[:, None, :]) @ rows[live].swapaxes(-1, -2)
        matrix = matrix * free[:, :, None] * free[:, None, :]
        diagonal = np.einsum("sii->si", matrix)
        diagonal += damping[live, None] * diagonal
        diagonal += 1e-12 * diagonal.max(axis=-1, keepdims=True) + 1e-300
        step = -np.linalg.solve(matrix, (gradient * free)[..., None])[..., 0]
        step /= np.maximum(1.0, np.abs(step).max(axis=-1, keepdims=True))
        trial = np.clip(point[live] + step, low, high)
        with np.errstate(all="ignore"):
            new_value, new_residual, new_rows = evaluate(trial, live)
        gain = value[live] - new_value
        good = gain >= 0
        taken = live[good]
        point[taken], value[taken] = trial[good], new_value[good]
        residual[taken], rows[taken] = new_residual[good], new_rows[good]
        damping[live] = np.where(good, damping[live] * 0.2, damping[live] * 5.0)
        damping[live] = np.clip(damping[live], 1e-10, 1e6)
        tail[live] = np.where(good, tail[live] * 0.5, np.minimum(1, tail[live] * 4.0))
        tail[live] = np.maximum(tail[live], 1e-3)
        still = good & (gain <= 1e-9 * value[live] + 1e-24)
        small = np.abs(step).max(axis=-1) < 1e-9
        quiet[live] = np.where(still | small, quiet[live] + 1, quiet[live] * ~good)
    return point, value
