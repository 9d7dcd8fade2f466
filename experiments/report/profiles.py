r"""Time to a target over several workloads, and performance profiles.

A *workload* is a model, its data and its task. Its target is the loss that the tuned
baseline has reached after four fifths of its run, averaged over the seeds. An
optimizer's time :math:`t_{s,w}` is the first step at which its own tuned run, averaged
over the same seeds, reaches the target, linear between evaluations; infinite if it
never does. A performance profile is the share of the W workloads on which an optimizer
is within a factor :math:`\tau` of the fastest, and the score the area under it,

.. math:: \rho_s(\tau) = \frac{1}{W}
          \#\left\{w : t_{s,w} \le \tau \min_{s'} t_{s',w}\right\}, \quad
          B_s = \frac{1}{\tau_{\max} - 1} \int_1^{\tau_{\max}} \rho_s(\tau) \, d\tau

with :math:`\tau_{\max} = 4`: 1 for an optimizer that is the fastest everywhere, 0 for
one that is nowhere within a factor of four.

References:
  Dahl, G. E. et al. (2023). Benchmarking Neural Network Training Algorithms
  (AlgoPerf).
  Dolan, E. D., Moré, J. J. (2002). Benchmarking optimization software with
  performance profiles. Mathematical Programming 91.

Differences:
  AlgoPerf takes wall time on fixed hardware and medians over studies, and holds
  workloads out; here time is in steps of the same batch, and every workload counts.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.curves import ENOUGH, Curve
from gnomon.experiments.report.tuning import Scale

Curves = Mapping[tuple[str, Scale], Curve | None]
SHARE = 0.8  # of the baseline's run, after which its loss is the target
LIMIT = 4.0  # largest factor of a profile


def time_to(step: np.ndarray, loss: np.ndarray, target: float) -> float:
    """The first step at which a loss reaches a target, linear between evaluations.

    Args:
      step: ``[points]``, rising.
      loss: ``[points]``.
      target: what to reach.

    Returns:
      Infinity if it never does; the first step if it starts there.

    Example:
      >>> time_to(np.array([10., 20., 30.]), np.array([3., 2., 1.]), 1.5)
      25.0
    """
    reached = np.flatnonzero(loss <= target)
    if not len(reached):
        return float("inf")
    i = reached[0]
    if i == 0:
        return float(step[0])
    share = (loss[i - 1] - target) / (loss[i - 1] - loss[i])
    return float(step[i - 1] + share * (step[i] - step[i - 1]))


def profile(times: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Shares of workloads on which each optimizer is within factors of the fastest.

    Args:
      times: ``[optimizers, workloads]``, infinite for a target that was not reached.
      factors: ``[factors]``, at least 1.

    Returns:
      ``[optimizers, factors]``. A workload that nobody finished counts for nobody.
    """
    ratios = _ratios(times)
    return np.mean(ratios[:, :, None] <= factors * (1 + 1e-12), axis=1)


def scores(times: np.ndarray, limit: float = LIMIT) -> np.ndarray:
    """Areas under the profiles from 1 to ``limit``, between 0 and 1; exact.

    Example:
      >>> scores(np.array([[10., 20.], [20., np.inf]]))
      array([1.        , 0.33333333])
    """
    return np.mean((limit - np.minimum(_ratios(times), limit)) / (limit - 1), axis=1)


def _ratios(times: np.ndarray) -> np.ndarray:
    fastest = times.min(axis=0)
    done = np.isfinite(fastest)
    ratios = np.full_like(times, np.inf)
    np.divide(times, fastest, out=ratios, where=done)
    return ratios


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
      analysis: The numbers of a report. Workloads are its scales with other data or
        task; of the lengths of one model only that counts at which every optimizer
        ran.
      curves: Of the best settings, from `curves.best_curves`.

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
