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

import numpy as np

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
    within = ratios[:, :, None] <= factors * (1 + 1e-12)
    return np.asarray(within.mean(axis=1))


def scores(times: np.ndarray, limit: float = LIMIT) -> np.ndarray:
    """Areas under the profiles from 1 to ``limit``, between 0 and 1; exact.

    Example:
      >>> scores(np.array([[10., 20.], [20., np.inf]]))
      array([1.        , 0.33333333])
    """
    areas = (limit - np.minimum(_ratios(times), limit)) / (limit - 1)
    return np.asarray(areas.mean(axis=1))


def _ratios(times: np.ndarray) -> np.ndarray:
    fastest = times.min(axis=0)
    done = np.isfinite(fastest)
    ratios = np.full_like(times, np.inf)
    np.divide(times, fastest, out=ratios, where=done)
    return ratios
