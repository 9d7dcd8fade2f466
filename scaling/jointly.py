r"""The joint law of several optimizers, with an effect of each cell of runs.

.. math::
   L_k(N, D) = E + (A + a_k) \Big(\frac{N}{N_0}\Big)^{-\alpha e^{u_k}}
   + (B + b_k) \Big(\frac{D}{D_0}\Big)^{-\beta e^{v_k}} + \eta_c + \epsilon_{kc}

for optimizer k in cell c, a pair of size N and length D. The baseline has
:math:`a = b = u = v = 0`; :math:`u, v` are zero for whoever shares the exponents.
:math:`\eta_c` of variance :math:`\rho \sigma^2` is what all optimizers of a cell share:
where the absolute law errs, and the luck of a seed. The larger :math:`\rho`, the more
the fit is one of differences within cells: a cell of m optimizers keeps the share
:math:`1 / (1 + m \rho)` of the information in its mean, and all of that in its
differences. Around both, losses scatter with the variance

.. math:: \sigma^2 v_c, \qquad v_c = \Big(\frac{N D}{N_0 D_0}\Big)^{-2 g}

since short runs of small models follow a law less closely: one that counted them as
much as long ones would miss these. :math:`\rho` and g are those of the greatest
restricted likelihood on a grid.

Few sizes hardly tell an exponent, so exponents have weak priors: published ones of
sizes and lengths lie within a factor of three of 0.35, and own exponents within about
a factor of three of the shared.

References:
  Harville, D. A. (1977). Maximum Likelihood Approaches to Variance Component Estimation
  and to Related Problems. JASA 72.
  Golub, G. and Pereyra, V. (2003), as in `gnomon.scaling.solver`.
"""

import itertools
from typing import NamedTuple

import numpy as np

SHARED = (np.log(0.35), 0.5)  # center and spread of the log of a shared exponent
OWN = 0.5  # spread of the log of an own exponent over the shared
RATIOS = np.geomspace(0.03, 3e3, 9)  # of variances, between cells over within
DECLINES = np.array([0.0, 0.1, 0.2, 0.3])  # of the scatter, as a power of compute
STARTS = (0.15, 0.35, 0.8)  # exponents that a search starts from
PRICE = 2.0  # of a decline, in twice the log likelihood: Akaike's of an unknown
TOLERANCE = 1e-6  # of the objective, which is about the number of losses
HEAD = 5  # log alpha, log beta, E, A, B; then a, b, u, v of each optimizer


class Runs(NamedTuple):
    """Losses of optimizers in cells.

    Attributes:
      size: ``[n]`` log of parameters over their center.
      length: ``[n]`` log of tokens over theirs.
      label: ``[n]`` numbers of optimizers, 0 for the baseline.
      cell: ``[n]`` numbers of cells.
      loss: ``[n]``.
      labels: how many optimizers.
      own: numbers of the optimizers with exponents of their own.
    """

    size: np.ndarray
    length: np.ndarray
    label: np.ndarray
    cell: np.ndarray
    loss: np.ndarray
    labels: int
    own: tuple[int, ...] = ()

    @property
    def free(self) -> np.ndarray:
        """Which entries of theta are fitted."""
        others = np.arange(self.labels) > 0
        own = np.isin(np.arange(self.labels), self.own)
        return np.flatnonzero(
            np.concatenate([np.ones(HEAD, bool), others, others, own, own])
        )

    @property
    def cells(self) -> np.ndarray:
        """How many losses each cell has."""
        return np.bincount(self.cell)

    @property
    def compute(self) -> np.ndarray:
        """``[cells]`` log of size times length over their centers."""
        first = np.unique(self.cell, return_index=True)[1]
        return (self.size + self.length)[first]


class Joint(NamedTuple):
    """A fit of the law.

    Attributes:
      theta: ``[5 + 4 labels]`` log alpha, log beta, E, A, B, then a, b, u and v.
      variance: Of a loss around the law and its cell's effect, at the center.
      ratio: The variance of a cell's effect over it.
      decline: The power of compute by which the root of the variance falls.
      largest: Log of the largest cell's compute over the center.
      freedom: Losses less unknowns.
    """

    theta: np.ndarray
    variance: float
    ratio: float
    decline: float
    largest: float
    freedom: int

    def scatter(self, compute: np.ndarray) -> np.ndarray:
        """Variances of losses at logs of compute; beyond the runs they fall no more."""
        within = np.minimum(compute, self.largest)
        return self.variance * np.exp(-2 * self.decline * within)


def terms(
    theta: np.ndarray, label: np.ndarray, size: np.ndarray, length: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Both terms of the law and their exponents.

    Args:
      theta: ``[..., 5 + 4 labels]``.
      label: ``[n]`` numbers of optimizers.
      size: ``[n]`` log of parameters over their center.
      length: ``[n]`` log of tokens over theirs.

    Returns:
      Of the size coefficient, power and exponent, of the length the same:
      ``[..., n]`` each.
    """
    labels = (theta.shape[-1] - HEAD) // 4
    a, b, u, v = (
        theta[..., HEAD + i * labels : HEAD + (i + 1) * labels][..., label]
        for i in range(4)
    )
    alpha = np.exp(theta[..., 0:1] + u)
    beta = np.exp(theta[..., 1:2] + v)
    with np.errstate(over="ignore", under="ignore"):
        return (
            theta[..., 3:4] + a,
            np.exp(-alpha * size),
            alpha,
            theta[..., 4:5] + b,
            np.exp(-beta * length),
            beta,
        )


def fit(runs: Runs) -> Joint:
    """Fits the law, and the ratio of variances.

    Args:
      runs: the losses.

    Returns:
      The fit.
    """
    starts = np.log(list(itertools.product(STARTS, STARTS)))
    theta = np.zeros((len(starts), HEAD + 4 * runs.labels))
    theta[:, :2] = starts
    middle = np.full(len(starts), np.median(RATIOS))
    total = float(np.var(runs.loss))
    theta, unlikely, variance = _climb(runs, theta, middle, 0 * middle, total)
    ratio, decline = (x.reshape(-1) for x in np.meshgrid(RATIOS, DECLINES))
    first = np.argmin(unlikely)
    theta = np.tile(theta[first], (len(ratio), 1))
    theta, unlikely, variance = _climb(runs, theta, ratio, decline, variance[first])
    best = int(np.argmin(unlikely))
    return Joint(
        theta[best],
        float(variance[best]),
        float(ratio[best]),
        float(decline[best]),
        float(runs.compute.max()),
        len(runs.loss) - len(runs.free),
    )


def _climb(runs, theta, ratio, decline, start):
    """Theta, minus twice the restricted log likelihood, and the variance at each."""
    weights = np.ones((len(theta), len(runs.cells)))
    freedom = len(runs.loss) - len(runs.free)
    centers = np.zeros_like(theta)
    centers[:, :2] = SHARED[0]
    least = 1e-16 * np.var(runs.loss) + 1e-300
    within = np.exp(-2 * np.multiply.outer(decline, runs.compute))
    variance = np.full(len(theta), start)
    for _ in range(2):
        theta, squares, curvature = descend(
            runs, theta, weights, ratio, within, variance, centers
        )
        variance = np.maximum(squares / freedom, least)
    away = (theta - centers) / _spreads(runs)
    shared = np.log1p(runs.cells * ratio[:, None] / within).sum(axis=-1)
    shared += (runs.cells * np.log(within)).sum(axis=-1)
    unlikely = (
        freedom * np.log(variance)
        + shared
        + np.linalg.slogdet(curvature * variance[:, None, None])[1]
        + (away[:, runs.free] ** 2).sum(axis=-1)
        + PRICE * (decline > 0)
    )
    return theta, unlikely, variance


def draw(runs: Runs, joint: Joint, draws: int, seed: int) -> np.ndarray:
    """Draws of theta around the estimate, as far apart as its errors are.

    Normal, A and B in their logarithms, with the covariance of restricted maximum
    likelihood; times Student's factor, for a variance known from few losses.

    Args:
      runs: the losses.
      joint: their fit.
      draws: how many, an even number: each comes with its mirror image.
      seed: of the draws.

    Returns:
      ``[draws, 5 + 4 labels]``.
    """
    centers = np.zeros((1, len(joint.theta)))
    centers[:, :2] = SHARED[0]
    curvature = descend(
        runs,
        joint.theta[None],
        np.ones((1, len(runs.cells))),
        np.array([joint.ratio]),
        np.exp(-2 * joint.decline * runs.compute)[None],
        np.array([joint.variance]),
        centers,
        iterations=0,
    )[2][0]
    rng = np.random.default_rng(seed)
    scale = 1 / np.sqrt(np.diag(curvature))
    root = np.linalg.cholesky(curvature * np.outer(scale, scale))
    half = rng.standard_normal((draws // 2, len(scale)))
    far = np.sqrt(joint.freedom / rng.chisquare(joint.freedom, (draws // 2, 1)))
    steps = scale * np.linalg.solve(root.T, (far * half).T).T
    theta = np.tile(joint.theta, (2 * len(steps), 1))
    theta[:, runs.free] += np.concatenate([steps, -steps])
    amounts = joint.theta[3:5]
    with np.errstate(all="ignore"):
        logs = amounts * np.exp(theta[:, 3:5] / amounts - 1)
    theta[:, 3:5] = np.where(amounts > 0, logs, theta[:, 3:5])
    return theta


def _spreads(runs: Runs) -> np.ndarray:
    """Of the priors; infinite where there is none."""
    spreads = np.full(HEAD + 4 * runs.labels, np.inf)
    spreads[:2] = SHARED[1]
    spreads[HEAD + 2 * runs.labels :] = OWN
    return spreads


def _slopes(theta: np.ndarray, runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """What the law says ``[p, n]``, and its slopes in what is free ``[p, n, q]``."""
    first, near, alpha, second, long, beta = terms(
        theta, runs.label, runs.size, runs.length
    )
    said = theta[:, 2:3] + first * near + second * long
    steep = (-alpha * runs.size * first * near, -beta * runs.length * second * long)
    head = np.stack([*steep, np.ones_like(said), near, long], axis=-1)
    mine = np.eye(runs.labels)[runs.label]
    tail = [each[..., None] * mine for each in (near, long, *steep)]
    return said, np.concatenate([head, *tail], axis=-1)[..., runs.free]


def descend(
    runs: Runs,
    theta: np.ndarray,
    weights: np.ndarray,
    ratio: np.ndarray,
    within: np.ndarray,
    variance: np.ndarray,
    centers: np.ndarray,
    iterations: int = 60,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Damped Gauss-Newton steps on p problems at once.

    Args:
      runs: the losses.
      theta: ``[p, 5 + 4 labels]`` where to begin.
      weights: ``[p, cells]`` how often each cell counts.
      ratio: ``[p]`` of variances.
      within: ``[p, cells]`` variances of losses over that at the center.
      variance: ``[p]`` at the center, against which the priors are weighed.
      centers: ``[p, 5 + 4 labels]`` of the priors.
      iterations: at most so many steps.

    Returns:
      Theta, the sum of squares of whitened residuals ``[p]``, and the curvature
      ``[p, q, q]`` of half the objective over what is free.
    """
    free = runs.free
    spreads = _spreads(runs)[free]
    precise, exponents = spreads**-2.0, np.isfinite(spreads)
    counts = runs.cells
    sums = np.eye(len(counts))[:, runs.cell]
    # The inverse of a cell's covariance takes this part off the product of its sums.
    off = ratio[:, None] / (within + np.multiply.outer(ratio, counts))
    weights = weights / within

    def evaluate(at, pick):
        said, slopes = _slopes(at, runs)
        rows = np.concatenate([slopes, (said - runs.loss)[..., None]], axis=-1)
        weight = weights[pick]
        total = sums @ rows
        across = rows.swapaxes(-1, -2) @ (rows * weight[:, runs.cell, None])
        shared = total * (weight * off[pick])[..., None]
        across -= total.swapaxes(-1, -2) @ shared
        squares = across[:, -1, -1]
        across = across / variance[pick, None, None]
        away = (at - centers[pick])[:, free]
        return (
            across[:, -1, -1] + (precise * away**2).sum(axis=-1),
            squares,
            across[:, :-1, -1] + precise * away,
            across[:, :-1, :-1] + np.diag(precise),
        )

    theta = theta.copy()
    live = np.arange(len(theta))
    damping = np.full(len(theta), 1e-2)
    still = np.zeros(len(theta), int)
    with np.errstate(all="ignore"):
        found = list(evaluate(theta, live))
        for _ in range(iterations):
            value, _, gradient, curvature = (part[live] for part in found)
            diagonal = np.einsum("pii->pi", curvature)
            diagonal += damping[live, None] * diagonal + 1e-300
            step = -np.linalg.solve(curvature, gradient[..., None])[..., 0]
            # An exponent moves by a factor of e at most.
            longest = np.abs(step * exponents).max(axis=-1, keepdims=True)
            trial = theta[live]
            trial[:, free] += step / np.maximum(1.0, longest)
            new = evaluate(trial, live)
            good = new[0] <= value
            theta[live[good]] = trial[good]
            for mine, other in zip(found, new, strict=True):
                mine[live[good]] = other[good]
            damping[live] *= np.where(good, 0.2, 5.0)
            gain = np.where(good, value - new[0], 0.0)
            settled = (gain <= TOLERANCE * value) & (good | (damping[live] > 1e6))
            still[live] = np.where(settled, still[live] + 1, 0)
            live = live[still[live] < 2]
            if not len(live):
                break
    return theta, found[1], found[3]
