"""Says the numbers of an analysis in words; claims nothing an interval excludes."""

import math
from collections.abc import Sequence

from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.factors import STAR, Pair, at_scale, overall, slope
from gnomon.experiments.report.knob import knob
from gnomon.scaling.comparison.resampling import NO_INTERVAL
from gnomon.scaling.comparison.speedup import CURVES, Comparison
from gnomon.scaling.comparison.summary import Summary

FEW = 4  # scales that a note tells of one by one


def call(
    interval: Pair,
    seeds: int,
    words: tuple[str, str] = ("faster", "slower"),
    p: float = math.nan,
) -> str:
    """What an interval allows one to say.

    Args:
      interval: of a number whose null value is 0.
      seeds: seeds behind it.
      words: for an interval above 0 and below it.
      p: the p-value after correction for the other comparisons, where there is one.

    >>> call((0.1, 0.3), seeds=3)
    'faster at 95 %'
    >>> call((0.1, 0.3), seeds=3, p=0.2)
    'faster at 95 % by itself, but not among all comparisons'
    >>> call((-0.1, 0.3), seeds=3)
    'no difference shown at 95 %'
    >>> call((-math.inf, math.inf), seeds=3)
    'the runs set it no bounds, so no verdict'
    """
    if seeds < 2:
        return "one seed, so no interval and no verdict"
    if interval == NO_INTERVAL:
        return "the runs set it no bounds, so no verdict"
    alone = " by itself, but not among all comparisons" if p > 0.05 else ""
    if interval[0] > 0:
        return f"{words[0]} at 95 %{alone}"
    if interval[1] < 0:
        return f"{words[1]} at 95 %{alone}"
    return "no difference shown at 95 %"


def comparison(one: Comparison, baseline: str) -> str:
    """The verdict at one scale as a sentence."""
    if one.reason:
        sentence = f"{one.label} at {one.scale.name}: no speedup, since {one.reason}."
        return f"{sentence} {difference(one, baseline)}".strip()
    number, spread = at_scale(one)
    said = call(one.log_interval, one.seeds, p=one.p)
    beside = extrapolation(one, baseline)
    if one.seeds < 2 or one.log_interval == NO_INTERVAL:
        return (
            f"{one.label} against {baseline} at {one.scale.name}: {said} (the estimate"
            f" alone is {number}{beside and f'; {beside}'})."
        )
    return (
        f"{one.label} is {number} {spread} as fast as {baseline} at {one.scale.name}"
        f"{beside and f' ({beside})'}: {said}."
    )


def extrapolation(one: Comparison | Summary, baseline: str) -> str:
    """What the stars of a comparison, or of a summary, mean; "" where it has none."""
    if isinstance(one, Summary):
        if not one.stretched:
            return ""
        what = "" if one.extrapolated else ", at an end of the interval,"
        return (
            f"{STAR} extrapolated{what} beyond {baseline}'s own {one.beyond} at"
            f" {one.stretched} of {one.scales[0]} scales"
        )
    if not (one.extrapolated or one.interval_extrapolated):
        return ""
    return f"{STAR} extrapolated beyond {baseline}'s own {CURVES[one.curve]}"


def difference(one: Comparison, baseline: str) -> str:
    """The difference of tuned losses as a sentence, "" where there is none."""
    if math.isnan(one.difference):
        return ""
    low, high = one.difference_interval
    spread = f" [{low:+.4f}, {high:+.4f}]" if one.seeds > 1 else ""
    return (
        f"{one.label}'s tuned loss differs from {baseline}'s by"
        f" {one.difference:+.4f}{spread}:"
        f" {call(one.difference_interval, one.seeds, ('worse', 'better'))}."
    )


def headline(summary: Summary, baseline: str) -> str:
    """The verdict over all scales as a sentence."""
    if summary.reason:
        return f"No speedup is given for {summary.label}, since {summary.reason}."
    compared, wanted = summary.scales
    where = f"over {compared} scales" if compared > 1 else "at the one scale compared"
    if compared < wanted:
        where += f" (of {wanted})"
    said = call(summary.known, summary.seeds, p=summary.p)
    number, spread = overall(summary)
    beside = extrapolation(summary, baseline)
    if not summary.decided:
        return (
            f"{summary.label} against {baseline} {where}: {said} (the estimate alone is"
            f" {number}{beside and f'; {beside}'})."
        )
    return (
        f"{summary.label} is {number} {spread} as fast as {baseline} {where}"
        f"{beside and f' ({beside})'}: {said}."
    )


def trend(summary: Summary) -> str:
    """Whether the verdict holds as the model grows, as a sentence."""
    if summary.reason:
        return ""
    if math.isnan(summary.slope):
        if summary.bounded:
            return (
                "No trend with model size is given: a scale is known only as a bound."
            )
        if summary.sizes > 1:
            return (
                "No two model sizes ran alike, for as many steps: nothing is said here"
                " about a trend with size alone."
            )
        return "One model size compared: nothing is said about larger models."
    if summary.seeds < 2:
        return "One seed: nothing is said about a trend with model size."
    whose = f"{summary.label}'s"
    low, high = summary.slope_interval
    if low <= 0 <= high:
        said = f"No trend of {whose} speedup with model size shown"
    else:
        # A gain or a lag is named only where the overall verdict has one.
        rises, falls = "speedup rises", "speedup falls"
        if summary.known[0] > 0:
            rises, falls = "gain grows", "gain shrinks"
        elif summary.known[1] < 0:
            rises, falls = "lag closes", "lag widens"
        said = f"{whose} {rises if low > 0 else falls} as the model grows"
    few = ", from two sizes only" if summary.sizes == 2 else ""
    number, spread = slope(summary)
    few += ", of extrapolated speedups" if summary.stretched else ""
    return (
        f"{said}: each doubling of the parameters multiplies the speedup by"
        f" {number.replace('x', '')} {spread}{few}."
    )


def _unequal(analysis: Analysis) -> list[str]:
    """Where optimizers were not given as many settings to choose from."""
    unequal: dict[str, dict[str, int]] = {}
    for scale in analysis.scales:
        here = [cell for cell in analysis.cells if cell.scale == scale]
        sizes = {cell.label: len(cell.settings) for cell in here}
        if len(set(sizes.values())) > 1:
            unequal[scale.name] = sizes
    if len(unequal) <= FEW:
        named = {
            name: ", ".join(f"{label} {size}" for label, size in sizes.items())
            for name, sizes in unequal.items()
        }
        return [
            f"Unequal tuning budgets at {name}: {budget} settings."
            for name, budget in named.items()
        ]
    ranges = []
    for label in analysis.labels:
        own = [sizes[label] for sizes in unequal.values() if label in sizes]
        ends = (
            "\N{EN DASH}".join(map(str, sorted({min(own), max(own)}))) if own else "0"
        )
        ranges.append(f"{label} {ends}")
    return [
        f"Unequal tuning budgets at {len(unequal)} of {len(analysis.scales)} scales:"
        f" {', '.join(ranges)} settings."
    ]


def notes(analysis: Analysis) -> Sequence[str]:
    """What a reader must know before trusting the verdict."""
    found = []
    seeds = min(len(cell.seeds) for cell in analysis.cells)
    if seeds == 1:
        found.append("One seed: no interval can be given. Run at least three.")
    elif seeds == 2:
        found.append("Two seeds: intervals are very wide. Three or four are better.")
    found += _unequal(analysis)
    if len({cell.seeds for cell in analysis.cells}) > 1:
        found.append(
            "Not every cell ran the same seeds: cells with different seeds are"
            " compared as if independent."
        )
    for cell in analysis.cells:
        optimum = cell.optimum
        for field, ends in cell.searched.items() if optimum else ():
            value = optimum.values.get(field) if optimum else None
            if isinstance(value, int | float) and knob(field).at_end(value, ends):
                found.append(
                    f"{cell.label} at {cell.scale.name}: the best point's"
                    f" {knob(field).words}, {value:g}, is at an end of the interval"
                    f" from {ends[0]:g} to {ends[1]:g}; a wider one may hold a better."
                )
    curves = {c.curve for c in analysis.comparisons if c.curve}
    if "scales" in curves:
        found.append(
            "The baseline ran at one length a model, so its compute to reach a loss"
            " is read across models: what a larger baseline model would need."
        )
    fix = (
        " With config.tuning.lengthen the baseline runs at further lengths until they"
        " hold the speedup between them."
    )
    found += [
        f"{summary.label}: {extrapolation(summary, analysis.baseline)}."
        + fix * analysis.source.swept
        for summary in analysis.summaries
        if summary.stretched
    ]
    if any(c.pooled for c in analysis.comparisons):
        found.append(
            "The baseline's tuned loss does not fall with compute everywhere; rising"
            " points were pooled before reading speedups."
        )
    return found
