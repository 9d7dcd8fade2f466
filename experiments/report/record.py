"""The numbers of a report as `report.json` holds them."""

import math
from collections.abc import Mapping
from typing import Any

from gnomon.experiments.records.provenance import Provenance
from gnomon.experiments.report import differences_words, verdict
from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.budgets import Sizes, inside
from gnomon.experiments.report.differences import Differences
from gnomon.experiments.report.law import Law, NoLaw
from gnomon.experiments.report.profiles import Profiles
from gnomon.experiments.report.text import verdict_lines
from gnomon.scaling.comparison.cell import Cell, Setting
from gnomon.scaling.comparison.resampling import NO_INTERVAL
from gnomon.scaling.comparison.speedup import Comparison, beyond
from gnomon.scaling.comparison.summary import Summary


def record(
    analysis: Analysis,
    provenance: Provenance,
    law: Law | NoLaw | None = None,
    found: Profiles | None = None,
    sizes: Mapping[str, Sizes] | None = None,
    joint: Differences | None = None,
) -> dict[str, Any]:
    """Everything the report says, as plain data; what is unknown is None.

    Args:
      analysis: the numbers.
      provenance: where they come from.
      law: the baseline's, where there is one.
      found: times to targets, for a sweep over several workloads.
      sizes: losses by size and budget, for a sweep of IsoFLOP curves.
      joint: the joint law of all optimizers, where there is one.

    Returns:
      Sections ``verdicts`` (sentences), ``overall``, ``comparisons``, ``cells``
      (grids with losses and trial ids), ``trials`` and ``provenance``. Speedups are
      factors; one outside ``limits``, or an end of an interval there, is null, since
      the baseline's runs cannot tell it, and ``bound`` says what they do tell. What
      lies beyond the baseline's own runs is ``extrapolated``.
    """
    base = analysis.baseline
    said = {
        "baseline": base,
        "metric": analysis.metric,
        "complete": provenance.complete,
        "verdicts": verdict_lines(analysis),
        "overall": [_summary(s, base) for s in analysis.summaries],
        "comparisons": [_comparison(c, analysis) for c in analysis.comparisons],
        "cells": [_cell(cell) for cell in analysis.cells],
        "law": None if law is None else _law(law),
        "isoflop": {label: _sizes(one) for label, one in (sizes or {}).items()} or None,
        "joint_law": None if joint is None else differences_words.record(joint),
        "time_to_target": None if found is None else _profiles(found),
        "trials": dict(provenance.counts),
        "notes": [*provenance.notes, *verdict.notes(analysis)],
        "provenance": dict(provenance.facts),
    }
    return _known(said)


def _known(value: Any) -> Any:
    """A value with None for each NaN in it."""
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_known(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _sizes(found: Sizes) -> dict[str, Any]:
    exponent, *interval = found.exponent
    at = found.frontier
    return {
        "compute": at.compute.tolist(),
        "params": at.params.tolist(),
        "loss": at.loss.tolist(),
        "inside": inside(found).tolist(),
        "exponent": exponent,
        "exponent_interval": interval,
    }


def _profiles(found: Profiles) -> dict[str, Any]:
    return {
        "targets": dict(zip(found.workloads, found.targets.tolist(), strict=True)),
        "optimizers": {
            label: {"score": float(score), "steps": times.tolist()}
            for label, score, times in zip(
                found.labels, found.scores, found.times, strict=True
            )
        },
        "notes": list(found.notes),
    }


def _law(law: Law | NoLaw) -> dict[str, Any]:
    if isinstance(law, NoLaw):
        return {"reason": law.reason}
    fit = law.fit
    return {
        "form": fit.form.formula,
        "parameters": {
            name: {"value": value, "interval": list(fit.interval(name))}
            for name, value in fit.parameters.items()
        },
        "runs": len(fit.measured),
        "checklist": [item._asdict() for item in law.items],
    }


def _factor(log: float, limits: tuple[float, float] = NO_INTERVAL) -> float:
    inside = limits[0] <= log <= limits[1]
    return math.exp(log) if inside and math.isfinite(log) else float("nan")


def _pair(logs: tuple[float, float], limits: tuple[float, float] = NO_INTERVAL) -> list:
    return [_factor(log, limits) for log in logs]


def _bound(side: int, log: float) -> dict[str, Any] | None:
    """What is known of a speedup that is more (1) or less (-1) than a number."""
    kind = {1: "at least", -1: "at most"}.get(side)
    return None if kind is None else {"kind": kind, "speedup": _factor(log)}


def _summary(s: Summary, baseline: str) -> dict[str, Any]:
    return {
        "label": s.label,
        "speedup": _factor(s.log_speedup) if not s.bound else None,
        "interval": [
            None if side else _factor(end)
            for end, side in zip(s.log_interval, s.open, strict=True)
        ],
        "bound": _bound(s.bound, s.log_speedup),
        "seeds": s.seeds,
        "scales_compared": s.scales[0],
        "scales": s.scales[1],
        "includes_bound": s.bounded,
        "extrapolated": s.extrapolated > 0,
        "interval_extrapolated": s.stretched > 0,
        "scales_extrapolated": s.stretched,
        "p_holm": s.p,
        "factor_per_doubling": _factor(s.slope),
        "factor_per_doubling_interval": _pair(s.slope_interval),
        "reason": s.reason or None,
        "verdict": verdict.headline(s, baseline),
        "trend": verdict.trend(s) or None,
    }


def _comparison(c: Comparison, analysis: Analysis) -> dict[str, Any]:
    side = 0 if c.reason else beyond(c.log_speedup, c.limits)
    trials = [
        trial
        for label in (c.label, analysis.baseline)
        if (cell := analysis.cell(label, c.scale)) is not None and cell.tuned
        for trial in cell.tuned.trials
    ]
    return {
        "label": c.label,
        "scale": c.scale.name,
        "speedup": _factor(c.log_speedup, c.limits),
        "interval": _pair(c.log_interval, c.limits),
        "limits": _pair(c.limits),
        "bound": _bound(side, c.limits[1] if side > 0 else c.limits[0]),
        "curve": c.curve or None,
        "power": c.power,
        "extrapolated": c.extrapolated,
        "interval_extrapolated": c.interval_extrapolated,
        "pooled": c.pooled,
        "loss_difference": c.difference,
        "loss_difference_interval": list(c.difference_interval),
        "seeds": c.seeds,
        "p_holm": c.p,
        "reason": c.reason or None,
        "verdict": verdict.comparison(c, analysis.baseline),
        "tuned_trials": trials,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    optimum = cell.optimum
    return {
        "label": cell.label,
        "scale": cell.scale.name,
        "parameters": cell.scale.parameters,
        "steps": cell.scale.steps,
        "compute": cell.compute,
        "seeds": list(cell.seeds),
        "status": cell.status,
        "tuned": cell.tuned is not None,
        "learning_rate": cell.lowest[0] if cell.knob.is_rate else None,
        "knob": cell.knob.field or None,
        "value": cell.lowest[0],
        "loss": cell.lowest[1],
        "optimum": None if optimum is None else _setting(optimum),
        "searched": {field: list(ends) for field, ends in cell.searched.items()},
        "grid": [_setting(setting) for setting in cell.settings],
    }


def _setting(setting: Setting) -> dict[str, Any]:
    return {
        "values": dict(setting.values),
        "loss": setting.mean,
        "losses": setting.losses.tolist(),
        "statuses": list(setting.statuses),
        "trials": list(setting.trials),
    }
