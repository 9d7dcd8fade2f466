"""Times to targets over the workloads of a sweep (`comparison.profiles`)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.curves import ENOUGH, Curve
from gnomon.scaling.comparison.profiles import scores, time_to
from gnomon.scaling.comparison.scale import Scale

Curves = Mapping[tuple[str, Scale], Curve | None]
SHARE = 0.8  # of the baseline's run, after which its loss is the target


class Profiles(NamedTuple):
    """Times to targets.

    Attributes:
      labels: the optimizers, the baseline first.
      workloads: names of the workloads.
      targets: ``[workloads]`` losses to reach.
      times: ``[optimizers, workloads]`` steps.
      scores: ``[optimizers]``.
      notes: workloads that are left out, and why.
    """

    labels: Sequence[str]
    workloads: Sequence[str]
    targets: np.ndarray
    times: np.ndarray
    scores: np.ndarray
    notes: Sequence[str]


def profiles(analysis: Analysis, curves: Curves) -> Profiles | None:
    """Times to targets over the workloads of a sweep.

    Args:
      analysis: the numbers of a report. Workloads are its scales with other data or
        task; of the lengths of one model only that counts at which every optimizer
        ran.
      curves: of the best settings, from `curves.best_curves`.

    Returns:
      The profiles, or None for a sweep of a single workload or a single optimizer.
    """
    labels = analysis.labels
    shared = [
        scale
        for scale in analysis.scales
        if all(analysis.cell(label, scale) is not None for label in labels)
    ]
    if len(labels) < 2 or len({scale.data for scale in shared}) < 2:
        return None
    names, targets, times, notes = [], [], [], []
    for scale in shared:
        found = _workload(analysis, scale, curves)
        if isinstance(found, str):
            notes.append(f"{scale.name} is left out: {found}.")
            continue
        names.append(scale.name)
        targets.append(found[0])
        times.append(found[1])
    if not names:
        return None
    table = np.array(times).T
    return Profiles(labels, names, np.array(targets), table, scores(table), notes)


def _workload(
    analysis: Analysis, scale: Scale, curves: Curves
) -> tuple[float, list[float]] | str:
    """The target and everyone's time to it, or why there is none."""
    found = []
    for label in analysis.labels:
        cell = analysis.cell(label, scale)
        assert cell is not None  # callers choose scales that all ran
        if cell.tuned is None:
            return f"{label} is not tuned there"
        curve = curves[label, scale]
        if curve is None or curve.name != analysis.metric:
            return f"{label} recorded {analysis.metric} less than {ENOUGH} times"
        found.append((curve.step, curve.mean))
    step, loss = found[0]
    target = float(np.interp(SHARE * step[-1], step, loss))
    return target, [time_to(step, loss, target) for step, loss in found]
