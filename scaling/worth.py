"""What draws of the joint law's numbers say: efficiencies, speedups, intervals."""

import numpy as np

from gnomon.scaling import jointly
from gnomon.scaling.comparison.resampling import quantiles
from gnomon.scaling.fit import Estimate


def log_efficiency(theta: np.ndarray, k: int, count: int, term: int) -> np.ndarray:
    """Log of optimizer k's efficiency of parameters (term 0) or tokens (1).

    Infinite where the term is no longer told from nothing.
    """
    base = theta[..., 3 + term]
    share = theta[..., jointly.HEAD + term * count + k] / base
    with np.errstate(divide="ignore", invalid="ignore"):
        log = -np.log(np.maximum(1 + share, 0.0)) / np.exp(theta[..., term])
    return np.where(base > 0, log, np.nan)


def speedups(theta: np.ndarray, gap: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Speedups in tokens for gaps ``[draws, places]`` at logs of tokens."""
    beta = np.exp(theta[:, 1:2])
    term = theta[:, 4:5] * np.exp(-beta * length)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = np.maximum(1 + gap / term, 0.0) ** (-1 / beta)
    return np.where(term > 0, found, np.where(gap < 0, np.inf, 0.0))


def ends(drawn: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles along the first axis; a draw that is no number counts as both ends."""
    return quantiles(drawn, np.isnan(drawn), level)


def shaped(
    value: np.ndarray, low: np.ndarray, high: np.ndarray, shape: tuple[int, ...]
) -> Estimate:
    """An estimate of a shape; one of no axes holds numbers."""
    return Estimate(*(np.reshape(part, shape)[()] for part in (value, low, high)))
