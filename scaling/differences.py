"""What a law of differences can be asked; `gnomon.scaling.efficiencies` fits it."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from gnomon.scaling import jointly
from gnomon.scaling.check import positive
from gnomon.scaling.fit import DRAWS, Estimate
from gnomon.scaling.form import center
from gnomon.scaling.gap_holdout import GapHoldout, held_out
from gnomon.scaling.paired import Paired
from gnomon.scaling.selection import flattery
from gnomon.scaling.worth import ends, log_efficiency, shaped, speedups

SIGMA = 0.6827  # the level of an interval of one standard deviation to both sides


class Efficiency(NamedTuple):
    """What an optimizer makes of a model and of data, 1 for the baseline.

    Attributes:
      params: Parameters that are worth as much to the baseline, over those it has.
      tokens: The same of tokens.
    """

    params: Estimate
    tokens: Estimate


class Exponents(NamedTuple):
    """An optimizer's own exponents less the baseline's: 0 where a gain is a constant.

    Attributes:
      params: Of the size.
      tokens: Of the length.
    """

    params: Estimate
    tokens: Estimate


@dataclasses.dataclass(frozen=True)
class Efficiencies:
    """Optimizers under one law. Made by `fit_efficiencies`.

    Attributes:
      runs: What it was fitted to.
      own: Labels with exponents of their own.
      searches: Runs of each label's search in a cell; empty for searches of one size.
      count: How many draws the intervals take.
      seed: Of the draws.
      calibrate: Whether intervals beyond the runs are widened to the errors of
        hold-outs.
    """

    runs: Paired
    own: tuple[str, ...] = ()
    searches: Mapping[str, int] = dataclasses.field(default_factory=dict)
    count: int = DRAWS
    seed: int = 0
    calibrate: bool = True

    @property
    def baseline(self) -> str:
        """The optimizer that the others are compared with."""
        return self.runs.labels[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """The other optimizers."""
        return self.runs.labels[1:]

    @functools.cached_property
    def joint(self) -> jointly.Joint:
        """The fit of the law."""
        return jointly.fit(self._rows)

    @functools.cached_property
    def draws(self) -> np.ndarray:
        """``[draws, ...]`` draws of the joint law's numbers."""
        return jointly.draw(self._rows, self.joint, self.count, self.seed)

    @property
    def parameters(self) -> dict[str, float]:
        """The baseline's law: E, A, B, alpha and beta."""
        alpha, beta = np.exp(self.joint.theta[:2])
        floor, a, b = self.joint.theta[2:5]
        size, length = self._centers
        return {
            "E": float(floor),
            "A": float(a * size**alpha),
            "B": float(b * length**beta),
            "alpha": float(alpha),
            "beta": float(beta),
        }

    @property
    def scatter(self) -> float:
        """How far losses at the center of the runs lie from the law, root mean square.

        Their cell's effect is taken off.
        """
        return float(np.sqrt(self.joint.variance))

    def misfit(self, params: Any, tokens: Any) -> Any:
        """The part of the scatter at a size and length that seeds do not explain.

        All of it without seeds.
        """
        at, shape = self._places(params, tokens)
        return np.sqrt(self._misfit(at)).reshape(shape)[()]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know."""
        found = []
        sizes, lengths = (
            len(np.unique(x)) for x in (self.runs.params, self.runs.tokens)
        )
        for name, count in (("size", sizes), ("length", lengths)):
            if count < 3:
                found.append(
                    f"{count} {name}{'s' * (count > 1)} hardly tell an exponent: that"
                    f" of {name} is mostly the prior's"
                )
        if np.isnan(self.runs.noise):
            found.append("no seeds: noise and lack of fit cannot be told apart")
        for label in self.searches and self.labels:
            bias = self._flattery(label)
            if abs(bias) > 1e-12:
                found.append(
                    f"{label}: the best of {self.searches[label]} beside the best of"
                    f" {self.searches[self.baseline]} is"
                    f" {'flattered' if bias > 0 else 'wronged'} by at most"
                    f" {abs(bias):.2g}; its intervals are that much wider"
                )
        return tuple(found)

    def gap(
        self,
        label: str,
        *,
        params: Any,
        tokens: Any,
        level: float = 0.95,
        noise: bool = False,
    ) -> Estimate:
        """An optimizer's loss minus the baseline's, below 0 where it is better.

        Args:
          label: the optimizer.
          params: parameters of the model, a number or an array.
          tokens: tokens or examples seen.
          level: of the interval.
          noise: False for the mean over seeds, True for one further run of each.

        Returns:
          The gap, shaped as the inputs broadcast. Its interval holds the law's
          uncertainty, its lack of fit, and the bias of unequal searches.

        Raises:
          ValueError: The label is unknown, or an input is not positive.
        """
        self._check(label, level)
        at, shape = self._places(params, tokens)
        value = self._gaps(self.joint.theta[None], label, at)[0]
        drawn = self._spread(label, value, at, noise)
        low, high = ends(drawn, level)
        bias = self._flattery(label)
        return shaped(value, low + min(0.0, bias), high + max(0.0, bias), shape)

    def speedup(
        self, label: str, *, params: Any, tokens: Any, level: float = 0.95
    ) -> Estimate:
        r"""Tokens that the baseline needs for the same loss, over those given.

        .. math:: S = \Big(1 + \frac{\Delta}{B D^{-\beta}}\Big)^{-1/\beta}

        for the gap :math:`\Delta` at the same size; infinite where the baseline never
        gets there at this size.

        Args:
          label: the optimizer.
          params: parameters of the model, a number or an array.
          tokens: tokens or examples that the optimizer sees.
          level: of the interval.

        Returns:
          The speedup, shaped as the inputs broadcast.

        Raises:
          ValueError: The label is unknown, or an input is not positive.
        """
        self._check(label, level)
        at, shape = self._places(params, tokens)
        theta = self.joint.theta[None]
        value = self._gaps(theta, label, at)
        drawn = self._spread(label, value[0], at, False)
        bias = self._flattery(label)
        found = [
            ends(speedups(self.draws, drawn + shift, at[1]), level)
            for shift in (min(0.0, bias), max(0.0, bias))
        ]
        return shaped(speedups(theta, value, at[1])[0], found[1][0], found[0][1], shape)

    def efficiency(self, label: str, level: float = 0.95) -> Efficiency:
        """What an optimizer makes of parameters and of tokens, the baseline's being 1.

        With exponents of its own this holds at the center of the runs.

        Args:
          label: the optimizer.
          level: of the intervals.

        Returns:
          Both efficiencies. An end is infinite where that term is no longer told from
          nothing.

        Raises:
          ValueError: The label is unknown.
        """
        self._check(label, level)
        return Efficiency(
            *(
                self._stretched(
                    label, level, functools.partial(log_efficiency, term=term)
                )
                for term in (0, 1)
            )
        )

    def exponents(self, label: str, level: float = 0.95) -> Exponents:
        """Whether an optimizer changes the exponents: its own less the baseline's.

        Refits the law with exponents of its own for this optimizer alone.

        Args:
          label: the optimizer.
          level: of the intervals.

        Returns:
          Differences of exponents, above 0 where its losses fall faster. An interval
          that holds 0 does not tell a constant gain from a changing one.

        Raises:
          ValueError: The label is unknown.
        """
        self._check(label, level)
        freed = self._with_own(label)
        k = freed.runs.labels.index(label)
        count = len(freed.runs.labels)

        def difference(theta, term):
            own = theta[..., jointly.HEAD + (2 + term) * count + k]
            return np.exp(theta[..., term]) * np.expm1(own)

        return Exponents(
            *(
                freed._around(level, functools.partial(difference, term=term))
                for term in (0, 1)
            )
        )

    def holdout(self, by: str = "params", level: float = 0.95) -> GapHoldout:
        """How well the smaller cells foretell the gaps of the largest.

        Args:
          by: ``"params"`` holds out the largest size, ``"tokens"`` the longest run of
            each size, ``"compute"`` the cells of the largest params times tokens.
          level: of the intervals.

        Returns:
          Predicted gaps, and the last gaps carried over, beside the measured.

        Raises:
          ValueError: Too few cells are left.
        """
        return held_out(self, by, level)

    @functools.cached_property
    def widening(self) -> float:
        """How much wider intervals are beyond the runs, 1 or more.

        The root mean square of what hold-outs by size and by length missed, in standard
        deviations that they said.
        """
        missed: list[float] = []
        for by in ("params", "tokens") if self.calibrate else ():
            try:
                held = self.holdout(by, SIGMA)
            except ValueError:
                continue
            said = (held.high - held.low) / 2
            missed += ((held.predicted - held.measured) / said).tolist()
        return max(1.0, math.sqrt(np.mean(np.square(missed)))) if missed else 1.0

    # What follows works on the numbers of `gnomon.scaling.jointly`.

    @functools.cached_property
    def _centers(self) -> tuple[float, float]:
        return center(self.runs.params), center(self.runs.tokens)

    @functools.cached_property
    def _rows(self) -> jointly.Runs:
        size, length = self._centers
        runs = self.runs
        return jointly.Runs(
            size=np.log(runs.params / size)[runs.cell],
            length=np.log(runs.tokens / length)[runs.cell],
            label=runs.label,
            cell=runs.cell,
            loss=runs.loss,
            labels=len(runs.labels),
            own=tuple(runs.labels.index(label) for label in self.own),
        )

    def _with_own(self, label: str) -> "Efficiencies":
        """The same with exponents of its own for one more optimizer."""
        if label in self.own:
            return self
        return dataclasses.replace(self, own=(*self.own, label))

    def _check(self, label: str, level: float) -> None:
        if label not in self.runs.labels:
            known = ", ".join(self.runs.labels)
            raise ValueError(f"label={label!r}: was not fitted; there are: {known}")
        if not 0 < level < 1:
            raise ValueError(f"level={level}: must lie between 0 and 1, such as 0.95")

    def _places(self, params, tokens):
        given = np.broadcast_arrays(
            positive("params", params), positive("tokens", tokens)
        )
        logs = [
            np.log(values.reshape(-1) / middle)
            for values, middle in zip(given, self._centers, strict=True)
        ]
        return logs, given[0].shape

    def _gaps(self, theta, label, at):
        """``[draws, places]`` of differences to the baseline."""
        k = np.full(len(at[0]), self.runs.labels.index(label))
        mine, base = (jointly.terms(theta, who, *at) for who in (k, 0 * k))
        sums = [
            first * near + second * far
            for first, near, _, second, far, _ in (mine, base)
        ]
        return sums[0] - sums[1]

    def _beyond(self, at):
        """Which places lie beyond all runs in size, length or compute."""
        runs = self._rows
        return (
            (at[0] > runs.size.max() + 1e-9)
            | (at[1] > runs.length.max() + 1e-9)
            | (at[0] + at[1] > runs.compute.max() + 1e-9)
        )

    def _misfit(self, at):
        """Variances that seeds do not explain."""
        variance = self.joint.scatter(at[0] + at[1])
        if np.isnan(self.runs.noise):
            return variance
        explained = self.runs.noise**2 * np.mean(1 / self.runs.runs)
        return np.maximum(0.0, variance - explained)

    def _spread(self, label, value, at, noise):
        """Draws of gaps, with the lack of fit of a cell."""
        drawn = self._gaps(self.draws, label, at)
        if label == self.baseline:
            return drawn
        beyond = self._beyond(at)
        wide = np.where(beyond, self.widening if beyond.any() else 1.0, 1.0)
        variance = 2 * self._misfit(at)
        if noise and not np.isnan(self.runs.noise):
            variance += 2 * self.runs.noise**2
        # The same normal scores in another order: no draw of luck.
        order = np.random.default_rng(self.seed + 1).permutation(len(drawn))
        ranks = (np.arange(len(drawn)) + 0.5) / len(drawn)
        score = special.stdtrit(max(self.joint.freedom, 1), ranks)[order]
        return value + wide * (drawn - value + score[:, None] * np.sqrt(variance))

    def _around(self, level, function):
        value = function(self.joint.theta)
        return Estimate(float(value), *map(float, ends(function(self.draws), level)))

    def _stretched(self, label, level, log):
        k, count = self.runs.labels.index(label), len(self.runs.labels)
        found = self._around(level, lambda theta: log(theta, k, count))
        with np.errstate(over="ignore"):
            return Estimate(*(float(np.exp(part)) for part in found))

    def _flattery(self, label: str) -> float:
        """The most by which the gap is too low for a search of another size."""
        if not self.searches or label == self.baseline:
            return 0.0
        noise = self.scatter if np.isnan(self.runs.noise) else self.runs.noise
        return flattery(self.searches[label], self.searches[self.baseline], noise)
