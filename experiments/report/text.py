"""The report as plain text, and the rows its tables share with the page."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gnomon.experiments.console.table import table
from gnomon.experiments.drawing.ticks import short
from gnomon.experiments.records.provenance import Provenance
from gnomon.experiments.report import budgets, differences_words, factors, verdict
from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.budgets import Sizes
from gnomon.experiments.report.differences import Differences
from gnomon.experiments.report.profiles import Profiles
from gnomon.experiments.report.source import Source
from gnomon.scaling.comparison.cell import Cell, why
from gnomon.scaling.comparison.speedup import CURVES, Comparison

Rows = list[list[str]]


def tuned_rows(analysis: Analysis) -> Rows:
    """Tuned settings: a heading and a row for each optimizer at each scale."""
    knobs = {cell.knob.words for cell in analysis.cells if cell.knob.field}
    alone = next(iter(knobs or {"learning rate"})) if len(knobs) < 2 else ""
    heading = ["optimizer", "scale", "parameters", "compute", alone or "tuned"]
    heading += ["other settings", "tuned loss", "seeds", "tried", "diverged", "status"]
    rows = [
        _tuned_row(cell, "" if alone else cell.knob.words, analysis.source)
        for cell in analysis.cells
    ]
    rows = [heading, *rows]
    if not any(row[5] for row in rows[1:]):
        rows = [row[:5] + row[6:] for row in rows]
    return rows


def _tuned_row(cell: Cell, knob: str, source: Source) -> list[str]:
    optimum, size = cell.optimum, cell.scale.parameters
    others = {} if optimum is None else dict(optimum.values)
    value = cell.lowest[0]
    if not math.isnan(value):
        others.pop(cell.knob.field, None)
    loss = "-"
    if optimum is not None:
        loss = f"{cell.lowest[1]:.4f}"
        if len(cell.seeds) > 1:
            loss += f" ± {np.std(optimum.losses, ddof=1):.4f}"
    if optimum is None:
        rate = "-"
    else:
        nothing = "-" if cell.status == "given" else "none"
        rate = nothing if math.isnan(value) else f"{knob} {short(value)}".strip()
    diverged = sum(t == "diverged" for s in cell.settings for t in s.statuses)
    return [
        cell.label,
        cell.scale.name,
        "-" if math.isnan(size) else f"{size:,.0f}",
        "-" if math.isnan(cell.compute) else source.amount(cell.compute),
        rate,
        ", ".join(f"{_named(field)} {v}" for field, v in others.items()),
        loss,
        str(len(cell.seeds)),
        "-" if cell.status == "given" else str(len(cell.settings)),
        str(diverged),
        _status(cell),
    ]


def _named(field: str) -> str:
    return field.removeprefix("optimizer.").removeprefix("schedule.")


def _status(cell: Cell) -> str:
    if cell.status != "incomplete":
        return why(cell).removeprefix("is ")
    each = [status for setting in cell.settings for status in setting.statuses]
    done = sum(status in ("finished", "diverged") for status in each)
    return f"incomplete: {done} of {len(each)} trials done"


def comparison_rows(analysis: Analysis) -> Rows:
    """Speedups: a heading, a row for each scale, and the rows over all scales."""
    rows = [["optimizer", "scale", "speedup", "95 % interval", "loss difference"]]
    rows[0] += ["curve", "p (Holm)", "verdict"]
    for summary in analysis.summaries:
        for one in analysis.comparisons:
            if one.label == summary.label:
                rows.append(_comparison_row(one, analysis.source.swept))
        if summary.scales[0] > 1:
            said = verdict.call(summary.known, summary.seeds, p=summary.p)
            number, spread = factors.overall(summary)
            name = f"all ({summary.scales[0]} of {summary.scales[1]})"
            curve = f"{summary.stretched} extrapolated{factors.STAR}"
            curve = curve if summary.stretched else ""
            p = _p(summary.p)
            rows.append([summary.label, name, number, spread, "", curve, p, said])
    return rows


def _p(value: float) -> str:
    """A p-value with what can be said of it.

    >>> _p(0.0214), _p(1e-7), _p(float("nan"))
    ('0.021', '<0.001', '-')
    """
    if math.isnan(value):
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _comparison_row(one: Comparison, swept: bool) -> list[str]:
    gap = ""
    if not math.isnan(one.difference):
        gap = f"{one.difference:+.4f}"
        if one.seeds > 1:
            low, high = one.difference_interval
            gap += f" [{low:+.4f}, {high:+.4f}]"
    if one.reason:
        said = f"no speedup: {one.reason}"
        return [one.label, one.scale.name, "-", "-", gap, "-", "-", said]
    return [
        one.label,
        one.scale.name,
        *factors.at_scale(one),
        gap,
        (one.curve if swept else CURVES[one.curve])
        + ", power law" * one.power
        + _beyond(one),
        _p(one.p),
        verdict.call(one.log_interval, one.seeds, p=one.p),
    ]


def _beyond(one: Comparison) -> str:
    if one.extrapolated:
        return f", extrapolated{factors.STAR}"
    return f", an end extrapolated{factors.STAR}" if one.interval_extrapolated else ""


def profile_rows(found: Profiles) -> Rows:
    """Steps to each target: a heading, a row a workload, and the scores."""
    rows = [["workload", "target loss", *found.labels]]
    for i, name in enumerate(found.workloads):
        times = [
            f"{time:.0f}" if math.isfinite(time) else "not reached"
            for time in found.times[:, i]
        ]
        rows.append([name, f"{found.targets[i]:.4f}", *times])
    rows.append(["score (0 to 1)", "", *(f"{score:.3f}" for score in found.scores)])
    return rows


def terminal(
    analysis: Analysis,
    provenance: Provenance,
    found: Profiles | None = None,
    sizes: Mapping[str, Sizes] | None = None,
    joint: Differences | None = None,
) -> str:
    """The whole report for a terminal."""
    parts = []
    if not provenance.complete:
        parts.append(f"PROVISIONAL: {provenance.done}")
    parts.append(table(tuned_rows(analysis)))
    if analysis.comparisons:
        parts.append(table(comparison_rows(analysis)))
    if found is not None:
        parts.append("steps to the target\n" + table(profile_rows(found)))
    if sizes:
        parts.append(budgets.sentence(sizes))
    if joint is not None:
        parts.append(table(differences_words.rows(joint)))
        parts.append("\n".join(differences_words.sentences(joint)))
    notes = [*provenance.notes, *verdict.notes(analysis)]
    if notes:
        parts.append("\n".join(f"note: {note}" for note in notes))
    parts.append("\n".join(verdict_lines(analysis)))
    return "\n\n".join(parts)


class Line(NamedTuple):
    """A sentence of the verdict.

    Attributes:
      words: The sentence.
      decided: Whether it gives a verdict, whose number may stand out.
    """

    words: str
    decided: bool = False


def lines_of(analysis: Analysis) -> list[Line]:
    """The sentences a report begins with, about the fastest optimizer first.

    One whose speedup has no bounds comes after those that have, one without last.
    """
    if not analysis.source.swept:
        return _few_lines(analysis)
    lines = []
    for summary in sorted(analysis.summaries, key=lambda s: s.standing):
        own = [c for c in analysis.comparisons if c.label == summary.label]
        if summary.reason:  # what can be said comes before what cannot
            lines += _differences(analysis, own)
        lines.append(
            Line(verdict.headline(summary, analysis.baseline), summary.decided)
        )
        if not summary.reason:
            further = verdict.trend(summary)
            if summary.scales[0] > 1 or own[-1].reason:
                further += f" {verdict.comparison(own[-1], analysis.baseline)}"
            lines.append(Line(further))
    lines += _alone(analysis)
    return [line for line in lines if line.words]


def _differences(analysis: Analysis, own: Sequence[Comparison]) -> list[Line]:
    return [
        Line(f"At {c.scale.name}: {verdict.difference(c, analysis.baseline)}")
        for c in own
        if not math.isnan(c.difference)
    ]


def _alone(analysis: Analysis) -> list[Line]:
    if analysis.summaries:
        return []
    return [Line(f"Only {analysis.baseline} was run: nothing to compare with.")]


def _few_lines(analysis: Analysis) -> list[Line]:
    """The same for a table of others, which may have many optimizers and one seed."""
    lines: list[Line] = []
    without: dict[str, list[str]] = {}
    for summary in sorted(analysis.summaries, key=lambda s: s.standing):
        if summary.reason:
            own = [c for c in analysis.comparisons if c.label == summary.label]
            lines += _differences(analysis, own)
            # What a sweep could do about it, the reader of a table cannot.
            reason = summary.reason.partition("; sweep")[0]
            own_name = f"{summary.label} "
            if reason.startswith(own_name):
                reason = f"it {reason.removeprefix(own_name)}"
            without.setdefault(reason, []).append(summary.label)
            continue
        lines.append(
            Line(verdict.headline(summary, analysis.baseline), summary.decided)
        )
        if summary.seeds > 1 and (trend := verdict.trend(summary)):
            lines.append(Line(trend))
    for reason, labels in without.items():
        lines.append(Line(f"No speedup is given for {', '.join(labels)}: {reason}."))
    return [*lines, *_alone(analysis)]


def verdict_lines(analysis: Analysis) -> list[str]:
    """The words of `lines_of`."""
    return [line.words for line in lines_of(analysis)]
