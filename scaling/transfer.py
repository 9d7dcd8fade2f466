r"""Shifted power laws from one loss to another, and the ladder from loss to accuracy.

References:
  Brandfonbrener, D. et al. (2024). Loss-to-Loss Prediction: Scaling Laws for All
  Datasets.
  Bhagia, A. et al. (2024). Establishing Task Scaling Laws via Compute-Efficient Model
  Ladders.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from gnomon.scaling.check import checked
from gnomon.scaling.chinchilla import ChinchillaFit, fit_chinchilla
from gnomon.scaling.fit import DRAWS, Estimate, Fit, fit_law
from gnomon.scaling.form import Columns, Form, complex_step


def fit_loss_to_loss(
    *,
    source: Any,
    loss: Any,
    floor: float | None = None,
    bootstrap: int = DRAWS,
    delta: float = 1e-3,
    seed: int = 0,
) -> Fit:
    r"""Fits :math:`L_1 = E_1 + K (L_0 - E_0)^\kappa`.

    The runs are paired: by compute between training sets, or one run's loss on two
    test sets.

    Args:
      source: ``[n]`` losses :math:`L_0` that the prediction starts from.
      loss: ``[n]`` losses :math:`L_1` of the paired runs.
      floor: :math:`E_0`, when known, such as ``E`` of a fit of the source's own law.
        None fits it too, which needs runs close to it; it then stays below the least
        source loss.
      bootstrap: draws behind the intervals; 0 takes the covariance.
      delta: of Huber's loss of log residuals.
      seed: of the bootstrap.

    Returns:
      The fit, with attributes ``E0``, ``E1``, ``K`` and ``kappa``.

    Raises:
      ValueError: A column is unfit, `floor` is not below every source loss, or there
        are not more runs than unknowns.

    Example:
      >>> L0 = np.linspace(2.2, 4.0, 8)
      >>> law = fit_loss_to_loss(source=L0, loss=1.1 + 0.8 * (L0 - 1.7) ** 1.2)
      >>> print({name: round(value, 4) for name, value in law.parameters.items()})
      {'E0': 1.7, 'E1': 1.1, 'K': 0.8, 'kappa': 1.2}
    """
    columns = checked(
        3 + (floor is None), distinct={"source": 3, "loss": 2}, source=source, loss=loss
    )
    measured = columns.pop("loss")
    least = columns["source"].min()
    if floor is not None and not 0 <= floor < least:
        raise ValueError(
            f"floor={floor}: must be at least 0 and below every source loss ({least:g})"
        )

    scale = float(np.median(columns["source"]))
    held = floor, least, scale
    gaps = () if floor is not None else (np.log(np.geomspace(0.005, 0.95, 24)),)
    bounds = [[0.02, 20.0], [np.log(1e-4), 0.0]][: 1 + len(gaps)]
    form = Form(
        complex_step(functools.partial(_shifted_terms, *held)),
        (np.geomspace(0.1, 5.0, 32), *gaps),
        np.array(bounds),
        functools.partial(_shifted_names, *held),
        frozenset({"K"}),
        "L1 = E1 + K (L0 - E0)^kappa",
    )
    return fit_law(
        form, columns, "loss", measured, bootstrap=bootstrap, delta=delta, seed=seed
    )


def _shift(floor: float | None, least: float, theta: np.ndarray) -> float | np.ndarray:
    # The gap below the least loss, by its logarithm.
    return floor if floor is not None else least * (1 - np.exp(theta[..., 1]))


def _shifted_terms(
    floor: float | None,
    least: float,
    scale: float,
    theta: np.ndarray,
    columns: Columns,
) -> np.ndarray:
    start = np.asarray(_shift(floor, least, theta))[..., None]
    # A prediction may ask for losses at or below the floor: there L1 = E1.
    gap = columns["source"] - start
    gap = np.where(gap.real > 0, gap, 1e-300)
    power = np.exp(theta[..., :1] * np.log(gap / scale))
    return np.stack([np.ones_like(power), power], axis=-2)


def _shifted_names(
    floor: float | None,
    least: float,
    scale: float,
    theta: np.ndarray,
    c: np.ndarray,
) -> dict[str, np.ndarray]:
    kappa = theta[..., 0]
    return {
        "E0": _shift(floor, least, theta) + 0 * kappa,
        "E1": c[..., 0],
        "K": c[..., 1] / scale**kappa,
        "kappa": kappa,
    }


def fit_accuracy(
    *,
    loss: Any,
    accuracy: Any,
    bootstrap: int = DRAWS,
    delta: float = 1e-2,
    seed: int = 0,
) -> Fit:
    r"""Fits accuracy in task loss, :math:`b + a / (1 + e^{k (L - L_0)})`.

    Args:
      loss: ``[n]`` task losses.
      accuracy: ``[n]`` accuracies, positive.
      bootstrap: draws behind the intervals; 0 takes the covariance.
      delta: of Huber's loss of log residuals.
      seed: of the bootstrap.

    Returns:
      The fit, with attributes ``chance`` (b), ``gain`` (a), ``steepness`` (k) and
      ``middle`` (:math:`L_0`).

    Raises:
      ValueError: A column is unfit, or there are fewer than five runs.

    Example:
      >>> L = np.linspace(0.4, 1.4, 9)
      >>> law = fit_accuracy(loss=L, accuracy=0.25 + 0.7 / (1 + np.exp(6 * (L - 0.8))))
      >>> print({name: round(value, 4) for name, value in law.parameters.items()})
      {'chance': 0.25, 'gain': 0.7, 'steepness': 6.0, 'middle': 0.8}
    """
    columns = checked(
        4, distinct={"loss": 4, "accuracy": 2}, loss=loss, accuracy=accuracy
    )
    measured = columns.pop("accuracy")
    low, high = columns["loss"].min(), columns["loss"].max()
    spread = high - low

    steep = np.log(np.geomspace(0.5, 50, 20) / spread)
    form = Form(
        complex_step(_logistic_terms),
        (steep, np.linspace(low - 0.5 * spread, high, 20)),
        np.array([[steep[0] - 2, steep[-1] + 2], [low - 3 * spread, high + spread]]),
        _logistic_names,
        frozenset({"gain", "steepness"}),
        "accuracy = chance + gain / (1 + exp(steepness (L - middle)))",
    )
    return fit_law(
        form, columns, "accuracy", measured, bootstrap=bootstrap, delta=delta, seed=seed
    )


def _logistic_terms(theta: np.ndarray, columns: Columns) -> np.ndarray:
    steep, middle = np.exp(theta[..., :1]), theta[..., 1:]
    slope = steep * (columns["loss"] - middle)
    # Beyond 700 the exponential overflows; the term is zero long before.
    slope = np.where(slope.real > 700, 700.0, slope)
    term = 1 / (1 + np.exp(slope))
    return np.stack([np.ones_like(term), term], axis=-2)


def _logistic_names(theta: np.ndarray, c: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "chance": c[..., 0],
        "gain": c[..., 1],
        "steepness": np.exp(theta[..., 0]),
        "middle": theta[..., 1],
    }


class Ladder(NamedTuple):
    """Two laws in a row.

    Attributes:
      loss: Task loss in parameters and tokens.
      accuracy: Accuracy in task loss.
    """

    loss: ChinchillaFit
    accuracy: Fit

    def predict(self, *, params: Any, tokens: Any, level: float = 0.95) -> Estimate:
        """Accuracy of a model to come.

        Args:
          params: its parameters.
          tokens: tokens of its training.
          level: of the interval.

        Returns:
          Accuracy with an interval that carries the errors of both laws. With
          bootstrap draws, draw k of both is of the same runs; without, the errors are
          added as if they were independent.

        Raises:
          ValueError: A size or length is not positive and finite.
        """
        at = self.loss.predict(params=params, tokens=tokens)
        value = self.accuracy.predict(loss=at)
        first, second = self.loss.draws, self.accuracy.draws
        if first is None or second is None:
            return self._without_draws(at, params, tokens, level)
        shape = np.shape(at)
        n, d = (np.broadcast_to(x, shape).reshape(-1) for x in (params, tokens))
        losses = self.loss.predictions(params=n, tokens=d)
        phi = [
            self.accuracy.form.basis(second.theta[k], {"loss": losses[k]})[0]
            for k in range(len(losses))
        ]
        found = np.einsum("sj,sjn->sn", second.coefficients, np.stack(phi))
        tail = (1 - level) / 2
        low, high = np.quantile(found, [tail, 1 - tail], axis=0)
        return Estimate(value, low.reshape(shape), high.reshape(shape))

    def _without_draws(
        self, at: np.ndarray, params: Any, tokens: Any, level: float
    ) -> Estimate:
        """Half widths of log intervals, the first law's through the second's slope."""
        first = self.loss.predict_interval(level, params=params, tokens=tokens)
        second = self.accuracy.predict_interval(level, loss=at)
        value, step = second.value, 1e-4
        ends = [self.accuracy.predict(loss=at * np.exp(x)) for x in (-step, step)]
        slope = np.log(ends[1] / ends[0]) / (2 * step)
        wide = np.hypot(
            np.log(second.high / value), slope * np.log(first.high / first.value)
        )
        return Estimate(value, value * np.exp(-wide), value * np.exp(wide))


def fit_ladder(
    *,
    params: Any,
    tokens: Any,
    loss: Any,
    accuracy: Any,
    bootstrap: int = DRAWS,
    delta: float = 1e-3,
    seed: int = 0,
) -> Ladder:
    """Fits both steps of a ladder of small models.

    Args:
      params: ``[n]`` parameters.
      tokens: ``[n]`` tokens of training.
      loss: ``[n]`` task losses.
      accuracy: ``[n]`` accuracies on the task.
      bootstrap: draws, the same runs in both steps.
      delta: of the first step; the second, whose noise is larger, takes ten times it.
      seed: of the bootstrap.

    Returns:
      Both laws; its `predict` chains them.

    Raises:
      ValueError: A column is unfit, or there are fewer than six runs.

    Example:
      >>> N, D = (x.ravel() for x in np.meshgrid(
      ...     [1e7, 1e8, 1e9], [1e9, 1e10, 1e11]))
      >>> L = 0.5 + 30 / N**0.25 + 90 / D**0.25
      >>> ladder = fit_ladder(params=N, tokens=D, loss=L,
      ...     accuracy=0.25 + 0.7 / (1 + np.exp(6 * (L - 0.9))))
      >>> print(ladder.predict(params=1e10, tokens=1e12).value.round(3))
      0.799
    """
    options = {"bootstrap": bootstrap, "seed": seed}
    first = fit_chinchilla(
        params=params, tokens=tokens, loss=loss, delta=delta, **options
    )
    second = fit_accuracy(loss=loss, accuracy=accuracy, delta=10 * delta, **options)
    return Ladder(first, second)
