"""Intervals in a sweep, in which a sampler chooses what a grid would list.

An override may hold an interval where it would hold a value. Such overrides nest in
`gnomon.experiments.config.grid` as others do. Those that agree in all but the seed are
one search: every point that the sampler asks for is trained with all its seeds, and
each is a trial like any other.

>>> from gnomon.experiments.config.grid import over, product
>>> rates = search({"optimizer.learning_rate": loguniform(1e-4, 1e-1)}, trials=16)
>>> len(product(rates, over("seed", [0, 1, 2])))
3

``config.tuning.trials`` is the number of points of a search, ``at_once`` how many are
asked for at a time, as lanes of one program, and ``sampler`` who chooses them
(`gnomon.experiments.tuning.sampling`).
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gnomon.experiments.config.changes import at, home, override
from gnomon.experiments.config.fields import digest, identity
from gnomon.experiments.config.grid import Override
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import (
    Trial,
    check_baselines,
    make_trial,
    numbered,
    trials_at,
)

LINEAR, LOG, NEAR_ONE = "linear", "log", "near one"


class Interval(NamedTuple):
    """The values that a sampler may choose, on the scale that it chooses them on."""

    low: float
    high: float
    scale: str

    def at(self, share: float) -> float:
        """The value at a share of the way from ``low`` to ``high``.

        >>> loguniform(1e-4, 1e-2).at(0.5), near_one(0.9, 0.999).at(0.5)
        (0.001, 0.99)
        """
        low, high, scale = self
        if scale == NEAR_ONE:
            return self.rounded(1 - (1 - low) ** (1 - share) * (1 - high) ** share)
        if scale == LOG:
            return self.rounded(low ** (1 - share) * high**share)
        return self.rounded(low + share * (high - low))

    def rounded(self, value: float) -> float:
        """A value in four digits, so that tables stay readable; whole in whole ends."""
        low, high, scale = self
        if isinstance(low, int) and isinstance(high, int):
            return round(value)
        if scale == NEAR_ONE:
            value = float(f"{1 - float(f'{1 - value:.4g}'):.9g}")
        else:
            value = float(f"{value:.4g}")
        return min(max(value, low), high)


def uniform(low: float, high: float) -> Interval:
    """From low to high alike; in a field of whole numbers, whole ones."""
    return _interval(low, high, LINEAR, -math.inf < low < high < math.inf)


def loguniform(low: float, high: float) -> Interval:
    """From low to high, each factor alike: a learning rate, a weight decay."""
    return _interval(low, high, LOG, 0 < low < high < math.inf)


def near_one(low: float, high: float) -> Interval:
    """From low to high, each factor of the distance from 1 alike: a momentum."""
    return _interval(low, high, NEAR_ONE, 0 <= low < high < 1)


def _interval(low: float, high: float, scale: str, fits: bool) -> Interval:
    if not fits:
        bounds = {LINEAR: "", LOG: "0 < ", NEAR_ONE: "0 <= "}[scale]
        end = " < 1" if scale == NEAR_ONE else ""
        raise ConfigError(
            f"an interval needs {bounds}low < high{end}; got low={low}, high={high}"
        )
    return Interval(low, high, scale)


def search(intervals: Mapping[str, Interval], trials: int = 0) -> list[Override]:
    """One override that leaves fields to the sampler.

    Args:
      intervals: by field.
      trials: points to try; 0: as many as ``config.tuning.trials`` says.
    """
    return [{**intervals, **({"tuning.trials": trials} if trials else {})}]


class Search(NamedTuple):
    """One optimizer at one scale, whose settings a sampler chooses.

    Attributes:
      key: names it; a change of what is searched gives another.
      configs: one for each seed, every interval at its low end.
      intervals: by field.
    """

    key: str
    configs: tuple[dict, ...]
    intervals: Mapping[str, Interval]

    @property
    def tuning(self) -> Mapping[str, Any]:
        """How to search."""
        return self.configs[0]["tuning"]

    def trials(self, values: Mapping[str, float]) -> list[Trial]:
        """The trials of a point, one for each seed."""
        return [make_trial(override(config, values)) for config in self.configs]

    def drafts(self) -> list[Trial]:
        """Trials such as those to come, for a plan."""
        count = self.tuning["trials"]
        return [
            trial
            for n in range(count)
            for trial in self.trials(
                {f: one.at((n + 0.5) / count) for f, one in self.intervals.items()}
            )
        ]


def read_sweep(base: Mapping, overrides: Iterable) -> tuple[list[Trial], list[Search]]:
    """The trials of a ``sweep()``, and its searches, all checked before any may run.

    Raises:
      ConfigError: as `gnomon.experiments.config.trials.make_trials`.
    """
    every = numbered(overrides)
    trials = trials_at(base, [one for one in every if not _intervals(one[1])])
    parts: dict[str, list[Search]] = {}
    for number, changes in every:
        if _intervals(changes):
            part = _part(base, number, changes)
            parts.setdefault(part.key, []).append(part)
    searches = []
    for key, same in parts.items():
        configs = {c["seed"]: c for part in same for c in part.configs}
        if len(configs) < len(same):
            raise ConfigError("sweep() has a search twice: vary the seed, or the label")
        name = digest([key, sorted(configs)])
        searches.append(Search(name, tuple(configs.values()), same[0].intervals))
    if not trials and not searches:
        raise ConfigError("sweep() yields no trials; yield at least {} for the base")
    every_config = [c for one in searches for c in one.configs]
    every_config += [trial.config for trial in trials]
    labels = {Trial("", config).label for config in every_config}
    check_baselines(labels, {c["report"].get("baseline", "") for c in every_config})
    return trials, searches


def _intervals(changes: Mapping) -> dict[str, Interval]:
    return {f: one for f, one in changes.items() if isinstance(one, Interval)}


def _part(base: Mapping, number: int, changes: Mapping) -> Search:
    """What one override adds to a search."""
    given, fixed = _intervals(changes), dict(changes)
    (high,) = trials_at(base, [(number, fixed | {f: i.high for f, i in given.items()})])
    (low,) = trials_at(base, [(number, fixed | {f: i.low for f, i in given.items()})])
    intervals = {}
    for field, one in given.items():
        place = home(field, low.config)
        ends = [at(trial.config, place.split(".")) for trial in (low, high)]
        # As the field has them: in a field of numbers, whole ends are numbers too.
        intervals[place] = Interval(ends[0], ends[1], one.scale)
    shown = [[field, *one] for field, one in intervals.items()]
    config = override(low.config, {"tuning.search": shown})
    said = [shown, config["tuning"]["sampler"], config["report"]["metric"]]
    key = digest([identity(config | {"seed": 0}), *said])
    return Search(key, (config,), intervals)
