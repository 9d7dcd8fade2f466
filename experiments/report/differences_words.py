"""The joint law of a report in words and rows, no stronger than its intervals."""

import math
from typing import Any

from gnomon.experiments.report.differences import Differences, Standing
from gnomon.scaling.fit import Estimate

EXPONENT = "+.3f"
_BUDGETS = (
    "Budgets count the model's FLOPs alone; what an optimizer adds is in the time a"
    " step, the wall time of the longest runs of each size, start-up and compilation"
    " included; its interval is over sizes, and wide where the machine had other work."
)
# Of the columns of `rows` behind the first: what the law says, and how fast that is.
PARTS = (slice(1, 5), slice(5, None))
INTRODUCTION = "Under one law for all, with a shared floor and exponents:"


def written(found: Estimate, form: str = ".2f") -> str:
    """An estimate with its interval.

    >>> written(Estimate(1.4, 1.27, float("inf")))
    '1.40 [1.27, no end]'
    >>> written(Estimate(-0.1, -0.2, 0.0), EXPONENT)
    '-0.100 [-0.200, +0.000]'
    """

    def number(value: float) -> str:
        return f"{value:{form}}" if math.isfinite(value) else "no end"

    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def verdict(one: Standing, baseline: str) -> str:
    """What the law says of one optimizer, in a sentence or two."""
    parts = []
    for what, worth in (("tokens", one.worth.tokens), ("parameters", one.worth.params)):
        if worth.low > 1 or worth.high < 1:
            parts.append(
                f"makes of {what} {written(worth)} times what {baseline} makes"
            )
        else:
            parts.append(f"shows no difference in {what}, {written(worth)}")
    said = f"{one.label} {' and '.join(parts)}."
    changes = []
    for what, own in (
        ("length", one.exponents.tokens),
        ("size", one.exponents.params),
    ):
        if own.low > 0 or own.high < 0:
            way = "grows" if own.low > 0 else "shrinks"
            changes.append(f"it {way} with {what}")
    exponents = (
        f"(exponents less {baseline}'s: of length"
        f" {written(one.exponents.tokens, EXPONENT)}, of size"
        f" {written(one.exponents.params, EXPONENT)})"
    )
    if changes:
        return f"{said} Its gain is no constant: {' and '.join(changes)} {exponents}."
    return f"{said} No change of its gain with length or size is shown {exponents}."


def check(found: Differences) -> str:
    """How well cheaper cells foretold the gaps of the largest budget."""
    held = found.held
    if held is None:
        return "Too few cells are left to hold out the largest budget."
    better = held.error < held.carried_error
    nothing = "" if better else ", so the law adds nothing here"
    return (
        f"Fitted without the largest budget it foretells {len(held.label)} gaps there"
        f" with a mean error of {held.error:.4f}; carrying the last gap over errs by"
        f" {held.carried_error:.4f}{nothing}."
        f" {held.covered:.0%} of the gaps lie inside their 95 % intervals."
    )


def sentences(found: Differences) -> list[str]:
    """The verdict on each optimizer, and the check of the law."""
    baseline = found.fit.baseline
    return [*(verdict(one, baseline) for one in found.standings), check(found)]


def cautions(found: Differences) -> list[str]:
    """What a reader should know."""
    fit = found.fit
    law = fit.parameters
    size, length = (f"{part:,.0f}" for part in found.at)
    wider = ""
    if fit.widening > 1:
        wider = f", {fit.widening:.2g} times as wide beyond the runs"
    notes = [
        f"The law of {fit.baseline}: L = {law['E']:.3g} + {law['A']:.3g}/N^"
        f"{law['alpha']:.3f} + {law['B']:.3g}/D^{law['beta']:.3f}; losses lie"
        f" {fit.scatter:.4f} from it and their cell's effect{wider}.",
        f"Speedups are in {found.unit}, at {size} parameters and {length} tokens, where"
        f" {fit.baseline} does best with the largest budget.",
        *([_BUDGETS] if found.unit == "steps" else []),
        f"Exponents are an optimizer's own less {fit.baseline}'s: above 0 its gain"
        " grows. Each interval is at 95 % by itself, none corrected for their number.",
        *(f"{note[0].upper()}{note[1:]}." for note in fit.notes),
    ]
    if found.left_out:
        notes.append(
            f"Left out, with too few sizes or lengths: {', '.join(found.left_out)}."
        )
    return notes


def rows(found: Differences) -> list[list[str]]:
    """Efficiencies, exponents, speedups: a heading, and a row for each optimizer."""
    table = [
        [
            "optimizer",
            "worth of a parameter",
            "worth of a token",
            "exponent of size",
            "exponent of length",
            f"speedup in {found.unit}",
            "time a step",
            "speedup in time",
        ]
    ]
    for one in found.standings:
        timed = math.isfinite(one.time)
        table.append(
            [
                one.label,
                written(one.worth.params),
                written(one.worth.tokens),
                written(one.exponents.params, EXPONENT),
                written(one.exponents.tokens, EXPONENT),
                written(one.speedup),
                written(Estimate(one.time, *one.time_interval)) if timed else "-",
                written(one.faster) if timed else "-",
            ]
        )
    return table


def record(found: Differences) -> dict[str, Any]:
    """The joint law as `report.json` holds it; an infinite end is None."""

    def pair(part: Estimate) -> dict[str, Any]:
        value, low, high = (
            float(x) if math.isfinite(x) else None for x in map(float, part)
        )
        return {"value": value, "interval": [low, high]}

    held = found.held
    return {
        "baseline": found.fit.baseline,
        "parameters": found.fit.parameters,
        "scatter": found.fit.scatter,
        "optimizers": {
            one.label: {
                "efficiency_params": pair(one.worth.params),
                "efficiency_tokens": pair(one.worth.tokens),
                "exponent_params": pair(one.exponents.params),
                "exponent_tokens": pair(one.exponents.tokens),
                "speedup_tokens": pair(one.speedup),
                "time_per_step": one.time,
                "time_interval": one.time_interval,
            }
            for one in found.standings
        },
        "speedup_at": {"params": found.at[0], "tokens": found.at[1]},
        "holdout": None
        if held is None
        else {
            "gaps": len(held.label),
            "error": held.error,
            "carried_error": held.carried_error,
            "covered": held.covered,
        },
        "verdicts": sentences(found),
        "notes": cautions(found),
    }
